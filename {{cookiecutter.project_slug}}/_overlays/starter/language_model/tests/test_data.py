"""Splits are disjoint, sequences are keyed, a bad file is one line."""

import pickle

import numpy as np
import pytest
import torch

from {{ cookiecutter.__package }}.config import Data, Model
from {{ cookiecutter.__package }}.data import TrainSet, load_data, sequences
from {{ cookiecutter.__package }}.repro import SampleStreams

SHORT = Model(context=4)


@pytest.fixture(scope="module")
def shakespeare(tmp_path_factory):
    return load_data(Data(), tmp_path_factory.mktemp("data"), Model())


def test_the_text_is_the_classic_one(shakespeare):
    """1,115,394 bytes, with the sha256 of char-rnn's file."""
    described = shakespeare.describe()
    assert described["num_samples"] == 1_115_394
    assert described["sha256"].startswith("86c4e6aa9db7c042")


def test_the_splits_share_no_token_and_hold_all(shakespeare):
    """Three stretches, one behind the other, with nothing between them."""
    train, val, test = shakespeare.train, shakespeare.val, shakespeare.test
    assert (train.begin, train.end, val.end) == (0, val.begin, test.begin)
    assert test.end == shakespeare.describe()["num_samples"]
    assert len(val) == len(test) == round(0.05 * test.end)


def test_no_sequence_leaves_its_split(tmp_path):
    """Whatever the epoch and the index, the last token is one of `train`."""
    (tmp_path / "t.txt").write_bytes(bytes(range(32, 127)))
    data = load_data(Data(path="t.txt", val_fraction=0.2, test_fraction=0.2), tmp_path, SHORT)
    samples = TrainSet(data.train, 4, SampleStreams(0))
    seen = {int(t) for e in range(50) for i in range(len(samples)) for t in samples[e, i]}
    whole = set(range(32, 32 + len(data.train)))
    assert seen <= whole
    assert len(whole - seen) < 4  # fewer than a sequence are left over


def test_a_sequence_depends_on_its_key_and_nothing_else(shakespeare):
    """The same (epoch, index) cuts the same stretch; another epoch cuts elsewhere."""
    samples = TrainSet(shakespeare.train, 64, SampleStreams(0))
    first = [samples[0, index] for index in range(20)]
    assert all(torch.equal(samples[0, index], first[index]) for index in reversed(range(20)))
    assert sum(not torch.equal(samples[1, index], first[index]) for index in range(20)) > 10


def test_evaluation_predicts_each_token_once(tmp_path):
    """Each sequence begins with the last token of the one before: as context, not as a target."""
    (tmp_path / "t.txt").write_bytes(bytes(range(32, 127)))
    data = load_data(Data(path="t.txt", val_fraction=0.2, test_fraction=0.2), tmp_path, SHORT)
    found = sequences(data.val, 4)
    assert found.shape == (4, 5)
    assert found[:, 1:].flatten().tolist() == list(range(data.val.begin + 33, data.val.begin + 49))


def test_loader_processes_get_the_path_and_not_the_text(shakespeare):
    """Whatever was read before, a megabyte of text is not sent to each of them."""
    assert len(shakespeare.train.array) == len(shakespeare.train)
    sent = pickle.dumps(shakespeare.train)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).array[:9], shakespeare.train.array[:9])


def test_token_ids_of_ones_own_are_mapped(tmp_path):
    """A `.npy` file of any unsigned type; `vocab_size` must cover its tokens."""
    np.save(tmp_path / "t.npy", np.arange(1000, dtype=np.uint16))
    config = Data(path="t.npy")
    data = load_data(config, tmp_path, Model(context=4, vocab_size=1000))
    assert isinstance(data.train.array, np.memmap)
    with pytest.raises(ValueError, match=r"holds token 999; model.vocab_size is 999, so"):
        load_data(config, tmp_path, Model(context=4, vocab_size=999))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"", "has 0 tokens, 0 of them for train"),
        ("t.txt", b"To be, or not to be", "19 tokens, .* for val; that takes more than twice"),
        ("t.txt", bytes(range(256)) * 9, "is a binary file; tokens belong in a .npy file"),
        ("t.txt", b"To be\0" * 99, "is a binary file"),
        ("t.txt", b"To be \xc3", "is not UTF-8 text; tokens belong in a .npy file"),
        ("t.txt", "caf\u00e9 ".encode("latin-1") * 99, "is not UTF-8 text"),
        ("t.npy", b"To be", "is not an array of NumPy"),
        ("t.npy", b"", "is not an array of NumPy"),
        ("t.bin", b"To be", "is neither a .txt nor a .npy file"),
        ("gone.txt", None, "cannot read .*gone.txt: No such file or directory"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, content, message):
    """What is wrong and what is allowed; nothing is trained."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        load_data(Data(path=name), tmp_path, SHORT)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("array", [np.zeros(9), np.zeros((9, 9), np.uint8), np.zeros(9, np.int32)])
def test_an_array_of_something_else_is_named(tmp_path, array):
    """Fractions, negative numbers and tables are no tokens."""
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(ValueError, match="must hold unsigned integers of one dimension, got"):
        load_data(Data(path="t.npy"), tmp_path, SHORT)
