"""Every verb in other people's shells: the same bits and the same record, or one line.

The rows are data (`surroundings_table.py`); each is a shell that sets something up, proves that it
did, and starts the command.
"""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from house import House
from surroundings_table import ROWS, Row

pytestmark = pytest.mark.surroundings
NOT_HAPPENED = 97
CELLS = [(row, verb) for row in ROWS for verb in row.verbs]


@pytest.fixture(scope="session")
def cells(house, request):
    """The outcome of every cell that is asked for; two at a time, since each uses one thread."""
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    pool = ThreadPoolExecutor(max_workers=2)
    futures = {
        (each["row"].name, each["verb"]): pool.submit(started, house, **each, number=str(number))
        for number, each in enumerate(asked)
        if each.keys() == {"row", "verb"}
    }
    yield lambda row, verb: futures[row.name, verb].result()
    pool.shutdown(cancel_futures=True)


def started(house: House, row: Row, verb: str, number: str):
    """Run a verb in a row's surroundings: how it ended, and the run that it made."""
    arguments, run = house.command(verb, number)
    environ = {name: value.format(**house.named) for name, value in row.env.items()}
    condition = row.condition.format(**house.named)
    line = row.around.format(command='"$@"')
    script = f"{row.before}\n({condition}) >/dev/null 2>&1 || exit {NOT_HAPPENED}\n{line}\n"
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", house.python, *map(str, arguments)],
        cwd=house.project,
        env={**house.environ, **environ},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done, run


@pytest.mark.parametrize(
    ("row", "verb"),
    [
        pytest.param(r, v, id=f"{r.name}-{v}", marks=[pytest.mark.slow] if r.joined else [])
        for r, v in CELLS
    ],
)
def test_a_shell_changes_nothing_or_is_refused(cells, house, row, verb):
    """Each cell of the table; a disturbance that did not happen fails it."""
    done, run = cells(row, verb)
    assert done.returncode != NOT_HAPPENED, f"{row.name} did not happen"
    assert "Traceback" not in done.stderr, done.stderr
    if row.refused:
        assert done.returncode == row.exit_code, done.stderr
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert re.search(row.refused, error)
        return
    assert done.returncode == 0, done.stderr
    visible = ">&-" not in row.around.replace("2>&-", "") and "|" not in row.around
    if verb in ("train", "resume"):
        found = house.differences(run)
        # A resumed run names what had changed around it since its start.
        assert sorted({key.split(" (")[0] for key in found}) == sorted(row.recorded)
    elif verb == "verify":
        assert json.loads((run / "verify.json").read_text())["identical"] is True
        assert not visible or done.stdout.splitlines()[-1] == "IDENTICAL"
    elif verb == "compare":
        # Below the table of both runs.
        assert done.stdout.splitlines()[-2:] == ["no recorded fact differs", "IDENTICAL"]
    else:
        assert done.stdout == house.doctor


def test_the_table_is_large_enough_and_every_row_proves_itself():
    """Sixty kinds of surroundings at the least, none without a condition that can fail."""
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60
    assert [row.name for row in ROWS if not row.condition] == []
