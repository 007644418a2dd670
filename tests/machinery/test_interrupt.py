"""Whatever asks a run to stop: a checkpoint of a whole step, and an exit code that names it."""

import os
import signal
import sys
import weakref

import pytest
from conftest import SMOKE, run
from real.repro.files import checkpoint_path
from real.repro.signals import (
    STOP_SIGNALS,
    CtrlC,
    StopRequest,
    ending_by_signals,
    ignore_stop_signals,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "XCPU"])
def test_every_signal_of_schedulers_and_terminals_saves_first(name, tmp_path):
    """A checkpoint of the step, and 128 plus the signal's number."""
    run_dir, name = tmp_path / "run", f"SIG{name}"
    number = signal.Signals[name]
    done = run(
        *("train", "--config", SMOKE, "--run-dir", run_dir, "data.num_workers=1"),
        send=f"{name} after repro.run.logs.Recorder.step 5",
    )
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.endswith(f"stopped after step 5; resume with train --resume {run_dir}\n")
    assert checkpoint_path(run_dir / "checkpoints", 5).exists()


def test_the_same_signal_again_ends_at_once():
    """Its default action is back; but the kernel repeats XCPU every second by itself."""
    for number in STOP_SIGNALS:
        with StopRequest() as stop:
            os.kill(os.getpid(), number)
            assert stop.signal_number == number
            again = signal.SIG_IGN if number == signal.SIGXCPU else signal.SIG_DFL
            assert signal.getsignal(number) is again


def test_the_first_signal_is_the_one_that_is_told():
    """A cluster may send USR1 as a warning, and TERM when time is up."""
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_number == signal.SIGUSR1


def test_nohup_stays_nohup(monkeypatch):
    """A hang-up that is ignored when the run starts does not stop it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_with_nothing_to_save_ends_as_by_an_exception():
    """So that its children and temporary folders go with it."""
    with pytest.raises(SystemExit) as ended, ending_by_signals():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert ended.value.code == 128 + signal.SIGUSR2
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


@pytest.mark.parametrize("launched", [True, False])
def test_a_rank_that_has_lost_another_lives_to_say_so(launched, monkeypatch):
    """torchrun sends SIGTERM to all others as soon as one has ended; a single run is none."""
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        with StopRequest():
            ignore_stop_signals()
        after = signal.getsignal(signal.SIGTERM)
        assert after is (signal.SIG_IGN if launched else before[signal.SIGTERM])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_ctrl_c_that_python_swallows_is_raised_again(monkeypatch):
    """In the callback of a weak reference, of which an import makes many: without a traceback."""
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    module = StopRequest()
    reference = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGINT))
    with CtrlC() as ctrl_c:
        del module
        assert reference() is None
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.heed()
    assert not printed
    assert sys.unraisablehook == printed.append


def test_another_error_that_python_swallows_is_printed(monkeypatch):
    """Only the one that comes again is silent."""
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    module = StopRequest()
    reference = weakref.ref(module, lambda _: 1 / 0)
    with CtrlC():
        del module
    assert reference() is None
    assert [swallowed.exc_type for swallowed in printed] == [ZeroDivisionError]
