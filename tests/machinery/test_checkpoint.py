"""A checkpoint is whole or refused, and a damaged one does not end the run."""

import pickle

import pytest
import torch
from real.repro.backend import state as states
from real.repro.backend.state import capture, digest, from_file, restore, to_bytes, weights_file
from real.repro.files import list_checkpoints
from real.repro.run.checkpoint import load_latest, save_checkpoint
from safetensors.torch import load
from torch import nn


def state(step: int, best: int = 0) -> dict:
    return {
        "step": step,
        "best": {"step": best, "val_accuracy": 0.5},
        "logs": {},
        "model": {"weight": torch.full((3,), float(step))},
        "optimizer": {"lr": 0.1},
    }


def test_only_the_newest_stay(tmp_path):
    """`keep` checkpoints remain, and the newest is the one that loads."""
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-00000003.pt",
        "step-00000010.pt",
    ]
    assert load_latest(tmp_path)["step"] == 10


def test_the_best_stays_however_old_it_is(tmp_path):
    """The checkpoint of the best epoch outlives the newest."""
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, state(step, best=1), keep=2)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-00000001.pt", "step-00000003.pt", "step-00000004.pt"]


def test_an_interrupted_write_leaves_the_one_before(tmp_path, monkeypatch):
    """A write that dies half-way does not touch what is there."""
    save_checkpoint(tmp_path, state(1), keep=3)

    def torn(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(states.torch, "save", torn)
    for step in (1, 2):  # over an older one of the same step, and beside it
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, state(step), keep=3)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001.pt"]
    assert load_latest(tmp_path)["step"] == 1


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no" * 99]
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    """Cut short, emptied or overwritten: the one before it is taken."""
    save_checkpoint(tmp_path, state(1), keep=3)
    path = save_checkpoint(tmp_path, state(2), keep=3)
    path.write_bytes(damage(path.read_bytes()))
    assert load_latest(tmp_path)["step"] == 1
    path.with_name("step-00000001.pt").unlink()
    with pytest.raises(ValueError, match="no whole checkpoint"):
        load_latest(tmp_path)


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_byte_changed_anywhere_is_noticed_or_harmless(tmp_path, position):
    """Wherever the damage is, loading gives the saved state or says that the file is damaged."""
    path = save_checkpoint(tmp_path, state(1), keep=3)
    content = bytearray(path.read_bytes())
    content[len(content) * position // 100] ^= 0xFF
    path.write_bytes(content)
    try:
        loaded = from_file(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert digest(loaded) == digest(state(1))


def test_the_digest_sees_the_shape_of_a_state():
    """The same keys and values nested otherwise are another state."""
    assert digest({"a": {"b": 1}, "c": 2}) != digest({"a": {"b": 1, "c": 2}})


def test_a_changed_checkpoint_is_refused_by_its_digest(tmp_path):
    """A state that is not the one that was saved is named, whoever wrote it."""
    path = save_checkpoint(tmp_path, state(1), keep=3)
    content = torch.load(path, weights_only=True)
    content["state"]["model"]["weight"][0] += 1
    torch.save(content, path)
    with pytest.raises(ValueError, match="changed after it was written"):
        from_file(path)


def test_a_pickle_bomb_is_not_executed(tmp_path):
    """Loading admits tensors and plain values only."""
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = tmp_path / "step-00000001.pt"
    for write in (lambda p: torch.save(Bomb(), p), lambda p: p.write_bytes(pickle.dumps(Bomb()))):
        write(path)
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            from_file(path)
        assert not marker.exists()


def test_a_state_that_does_not_arrive_is_refused(tmp_path):
    """If loading changes a bit of the live state, the run does not continue."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objects = {"model": model, "optimizer": optimizer}
    saved = capture(objects, step=1, best={"step": 0}, logs={})
    restore(saved, objects)

    class Rounding(torch.nn.Linear):
        def _load_from_state_dict(self, state_dict, *rest):
            super()._load_from_state_dict(state_dict, *rest)
            self.weight.data += 1

    model = Rounding(2, 1)
    with pytest.raises(ValueError, match="did not survive loading"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        restore(saved, {"model": model, "optimizer": optimizer})


def trained(order=lambda parameters: parameters, kind=torch.optim.AdamW, width=3):
    """A small model and its optimizer after one step, and their state."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 4))
    optimizer = kind(order(list(model.parameters())), lr=0.1)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    objects = {"model": model, "optimizer": optimizer}
    return objects, captured(objects)


def captured(objects):
    """Their state, as it goes into a checkpoint."""
    return capture(objects, step=1, best={"step": 0}, logs={})


MISFITS = {
    "parameters in another order": (
        {"order": lambda parameters: parameters[::-1]},
        r"the optimizer had 0\.weight float32 \[3, 4\] where it has 1\.bias float32 \[4\] now",
    ),
    "two of one shape that changed places": (
        {"order": lambda p: [p[0], p[3], p[2], p[1]], "width": 4},
        r"the optimizer had 0\.bias float32 \[4\] where it has 1\.bias float32 \[4\] now",
    ),
    "another optimizer": ({"kind": torch.optim.SGD}, "the optimizer was AdamW, is SGD"),
    "another width": ({"width": 5}, r"0\.weight was float32 \[3, 4\], is float32 \[5, 4\]"),
    "fewer parameters": ({"order": lambda p: p[:3]}, "the optimizer had 4 parameters, has 3"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_state_is_loaded_where_it_fits_or_not_at_all(name):
    """By name, shape and dtype, the optimizer's too: its moments go by position."""
    how, said = MISFITS[name]
    *_, saved = trained(width=how.get("width", 3) if "order" in how else 3)
    objects, before = trained(**how)
    with pytest.raises(ValueError, match=said):
        restore(saved, objects)
    assert digest(captured(objects)) == digest(before)


def test_moments_of_an_older_checkpoint_must_have_their_parameters_shape():
    """Such a file does not say which parameter is which; a fused step would write out of bounds."""
    *_, saved = trained()
    del saved["layout"]
    objects, _ = trained()
    restore(saved, objects)
    objects, _ = trained(order=lambda parameters: parameters[::-1])
    with pytest.raises(ValueError, match=r"exp_avg of 1\.bias is \[3, 4\], the parameter \[4\]"):
        restore(saved, objects)


def test_another_dtype_is_named(tmp_path):
    """Loading would round it without a word."""
    objects, saved = trained()
    saved["model"] = {name: tensor.double() for name, tensor in saved["model"].items()}
    with pytest.raises(ValueError, match=r"0\.weight was float64 \[3, 4\], is float32"):
        restore(saved, objects)


def test_the_weights_of_several_modules_are_kept_by_name():
    """Of a run without a `model`: every module, each tensor by the module's name and its own."""
    both = {"generator": torch.nn.Linear(2, 1), "critic": torch.nn.Linear(1, 1)}
    found = load(weights_file({**both, "optimizer": torch.optim.SGD(both["critic"].parameters())}))
    assert found.keys() == {"generator.weight", "generator.bias", "critic.weight", "critic.bias"}


class Tied(nn.Module):
    """One tensor under two names, and a version that loading has to see."""

    _version = 7

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
        self.last.weight = self.first.weight


def test_what_is_saved_does_not_change_while_it_is_written():
    """Training goes on meanwhile; tied weights stay one tensor, and versions of modules arrive."""
    model = Tied()
    saved = capture({"model": model}, step=1, best={"step": 0}, logs={})
    before = digest(saved)
    with torch.no_grad():
        model.first.weight.add_(1)
    assert digest(saved) == before != digest(capture({"model": model}, step=1))
    weights = saved["model"]
    assert weights["first.weight"] is weights["last.weight"]
    assert weights._metadata[""]["version"] == 7
    assert len(to_bytes(saved)) < 2 * 64 * 64 * 4
