"""Splits are disjoint and stable, augmentation is keyed, CIFAR-10 is checked before it is read."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch

from {{ cookiecutter.__package }} import cifar
from {{ cookiecutter.__package }}.config import Data
from {{ cookiecutter.__package }}.data import (
    NUM_DRAWS,
    Split,
    TrainSet,
    augment,
    load_data,
    split_by_content,
)
from {{ cookiecutter.__package }}.repro import SampleStreams


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load_data(Data(), tmp_path_factory.mktemp("data"))


def test_splits_share_no_image_and_hold_every_sample(digits):
    """No training image, not even a copy of one, is in validation or test."""
    contents = [
        {image.tobytes() for image in split.images}
        for split in (digits.train, digits.val, digits.test)
    ]
    assert not (contents[0] & contents[1] or contents[0] & contents[2] or contents[1] & contents[2])
    assert digits.describe()["num_samples"] == 1797


def test_a_sample_keeps_its_side_when_the_data_grow(digits):
    """Splitting by content: more or reordered samples move none of the others."""
    images = np.concatenate([s.images for s in (digits.train, digits.val, digits.test)])
    labels = np.concatenate([s.labels for s in (digits.train, digits.val, digits.test)])
    few = split_by_content(Split(images[:500], labels[:500]), 0.15, 0.15)[2]
    more = split_by_content(Split(images[::-1], labels[::-1]), 0.15, 0.15)[2]
    assert {i.tobytes() for i in few.images} <= {i.tobytes() for i in more.images}


def test_one_changed_bit_changes_the_digest(digits, tmp_path):
    """The data's sha256 covers every pixel and label."""
    before = digits.describe()["sha256"]
    copy = load_data(Data(), tmp_path)
    assert copy.describe()["sha256"] == before
    copy.train.images[0, 0, 0, 0] ^= 1
    assert copy.describe()["sha256"] != before


def test_the_layout_of_memory_changes_no_result(digits):
    """Equal digests, equal bits: a single channel may have any stride, and convolutions notice."""
    source = digits.train
    strided = source.images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    odd = np.lib.stride_tricks.as_strided(strided, strided.shape, (64, 1, 8, 1))
    assert odd.strides != source.images.strides
    other = Split(odd, source.labels[::-1][::-1])
    assert other.sha256() == source.sha256()
    assert other.images.strides == source.images.strides
    keys = [(0, index) for index in range(8)]
    sets = [TrainSet(each, Data(), SampleStreams(0)) for each in (source, other)]
    strides = {samples.__getitems__(keys)[0].stride() for samples in sets}
    assert strides == {(64, 64, 8, 1)}
    draws = np.zeros((8, NUM_DRAWS))
    assert augment(odd[:8], Data(), draws).strides == (64, 64, 8, 1)


def test_augmentation_depends_on_the_key_and_nothing_else(digits):
    """The same (epoch, index) gives the same pixels; another epoch gives others somewhere."""
    samples = TrainSet(digits.train, Data(max_shift=2), SampleStreams(0))
    first = [samples[0, index][0].numpy().tobytes() for index in range(20)]
    assert [samples[0, index][0].numpy().tobytes() for index in range(20)] == first
    assert [samples[1, index][0].numpy().tobytes() for index in range(20)] != first


def test_a_batch_is_its_samples_fetched_one_by_one(digits):
    """Neither the other samples of a batch nor the position within it matter."""
    samples = TrainSet(digits.train, Data(max_shift=2), SampleStreams(0))
    keys = [(2, 7), (0, 3), (2, 6), (1, 3)]
    images, labels = samples.__getitems__(keys)
    for key, image, label in zip(keys, images, labels, strict=True):
        alone, its_label = samples[key]
        assert torch.equal(image, alone)
        assert label == its_label == digits.train.labels[key[1]]


def test_augmentation_moves_and_mirrors_within_its_bounds():
    """A single bright pixel lands at most `max_shift` away, in both directions and both flips."""
    image = np.zeros((1, 5, 5), np.uint8)
    image[0, 2, 1] = 9
    config = Data(max_shift=1, horizontal_flip=True)
    streams = SampleStreams(0)
    draws = np.stack([streams(0, index).random(NUM_DRAWS) for index in range(500)])
    moved = augment(np.repeat(image[np.newaxis], 500, axis=0), config, draws)
    assert len(np.argwhere(moved)) == 500
    places = {(row, column) for _, _, row, column in np.argwhere(moved).tolist()}
    assert places == {(row, column) for row in (1, 2, 3) for column in (0, 1, 2, 3, 4)}


def archive(path, samples_a_file=2):
    """A small archive in CIFAR-10's format, and the images that it holds."""
    random = np.random.default_rng(0)
    expected = []
    with tarfile.open(path, "w:gz") as tar:
        for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
            labels = random.integers(0, 10, (samples_a_file, 1), np.uint8)
            images = random.integers(0, 256, (samples_a_file, 3, 32, 32), np.uint8)
            content = np.hstack([labels, images.reshape(samples_a_file, -1)]).tobytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            expected.append((images, labels.ravel()))
    return expected


def test_cifar10_is_read_plane_by_plane(tmp_path, monkeypatch):
    """Labels, then red, green and blue planes; five training files and one test file."""
    path = tmp_path / cifar.ARCHIVE
    expected = archive(path)
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    (images, labels), (test_images, test_labels) = cifar.load_cifar10(tmp_path)
    assert np.array_equal(images, np.concatenate([i for i, _ in expected[:5]]))
    assert np.array_equal(labels, np.concatenate([label for _, label in expected[:5]]))
    assert np.array_equal(test_images, expected[5][0])
    assert np.array_equal(test_labels, expected[5][1])


def test_another_archive_is_refused_by_its_digest(tmp_path):
    """An archive other than CIFAR-10's is reported with both digests and not read."""
    archive(tmp_path / cifar.ARCHIVE)
    with pytest.raises(ValueError, match=f"expected {cifar.SHA256}; delete the file"):
        cifar.load_cifar10(tmp_path)


def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    """No partial file is left behind, and the message names a way out."""
    monkeypatch.setenv("CIFAR10_URL", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(ValueError, match=r"copy cifar-10-binary.tar.gz to .* by hand"):
        cifar.load_cifar10(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
