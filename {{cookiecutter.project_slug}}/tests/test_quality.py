"""Randomness is used well, not only repeatably: what must differ does, and nothing is used twice.

One run is watched from inside for each of two seeds: its seeds, weights, batches and evaluations.
"""

import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PACKAGE, SMOKE
from sklearn.datasets import load_digits

from {{ cookiecutter.__package }} import train as story
from {{ cookiecutter.__package }}.checkpoint import (
    checkpoint_path,
    digest,
    load_checkpoint,
)
from {{ cookiecutter.__package }}.config import (
    Data,
    load_config,
)
from {{ cookiecutter.__package }}.data import (
    TrainSet,
    load_data,
)
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.optim import learning_rate
from {{ cookiecutter.__package }}.record import (
    read_metrics,
    read_steps,
)

CPU = torch.device("cpu")
SEEDS = (0, 1)


@dataclasses.dataclass
class Observed:
    """What happened in a run, in order."""

    run_dir: Path | None = None
    seedings: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    initial: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    keys: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = dataclasses.field(default_factory=list)
    streams: list[bytes] = dataclasses.field(default_factory=list)
    """State of torch's generator before each training pass."""
    losses: list[float] = dataclasses.field(default_factory=list)
    rates: list[float] = dataclasses.field(default_factory=list)
    evaluations: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Digest of the model before and after each."""


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> list[Observed]:
    """A run of each seed, watched."""
    return [watch(seed, tmp_path_factory.mktemp("watched") / str(seed)) for seed in SEEDS]


def watch(seed: int, run_dir: Path) -> Observed:
    seen = Observed()
    with pytest.MonkeyPatch.context() as patch:
        watch_seeding(patch, seen)
        watch_training(patch, seen)
        seen.run_dir = story.train_model(load_config(SMOKE, seed=seed), run_dir=run_dir).run_dir
    return seen


def watch_seeding(patch: pytest.MonkeyPatch, seen: Observed) -> None:
    def note(name: str, key: Any) -> None:
        # A library may draw names for its temporary files as it likes.
        if key is not None or sys._getframe(2).f_globals["__name__"].startswith(PACKAGE):
            seen.seedings.append((name, key))

    def listen(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def heard(*arguments: Any, **named: Any) -> Any:
            note(name, arguments[0] if arguments else next(iter(named.values()), None))
            return function(*arguments, **named)

        patch.setattr(owner, name, heard)

    class Generator(torch.Generator):
        def manual_seed(self, key: int) -> torch.Generator:
            note("Generator.manual_seed", key)
            return super().manual_seed(key)

    class Default:
        def __init__(self, generator: torch.Generator) -> None:
            self.generator = generator

        def manual_seed(self, key: int) -> torch.Generator:
            note("default_generator.manual_seed", key)
            return self.generator.manual_seed(key)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.generator, name)

    class Philox(np.random.Philox):
        @property
        def state(self) -> dict[str, Any]:
            return super().state

        @state.setter
        def state(self, value: dict[str, Any]) -> None:
            first, second = map(int, value["state"]["key"])
            note("Philox.state", first << 64 | second)
            super(Philox, type(self)).state.__set__(self, value)

    class Random(random.Random):
        def __init__(self, key: Any = None) -> None:
            note("Random", key)
            super().__init__(key)

    listen(random, "seed")
    for name in ("seed", "default_rng", "PCG64"):
        listen(np.random, name)
    patch.setattr(np.random, "Philox", Philox)
    for name in ("manual_seed", "seed"):
        listen(torch, name)
    patch.setattr(random, "Random", Random)
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch, "default_generator", Default(torch.default_generator))


def watch_training(patch: pytest.MonkeyPatch, seen: Observed) -> None:
    real_model, real_loader, real_evaluate = (
        story.build_model,
        story.build_loader,
        story.evaluate,
    )
    real_optimizer, cross_entropy = story.build_optimizer, story.F.cross_entropy
    models: list[torch.nn.Module] = []

    def watched_model(*arguments: Any, **named: Any) -> torch.nn.Module:
        model = real_model(*arguments, **named)
        seen.initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.register_forward_pre_hook(before_pass)
        models.append(model)
        return model

    def before_pass(model: torch.nn.Module, _: Any) -> None:
        if model.training:
            seen.streams.append(torch.get_rng_state().numpy().tobytes())

    def watched_loader(split: Any, config: Any, sampler: Any) -> Any:
        seen.keys = list(sampler)
        for batch in real_loader(split, config, sampler):
            seen.batches.append(batch)
            yield batch

    def watched_evaluate(model: torch.nn.Module, *arguments: Any) -> tuple[float, float]:
        before = digest(model.state_dict())
        result = real_evaluate(model, *arguments)
        seen.evaluations.append((before, digest(model.state_dict())))
        return result

    def watched_optimizer(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = real_optimizer(*arguments)
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: seen.rates.append(optimizer.param_groups[0]["lr"])
        )
        return optimizer

    def watched_loss(*arguments: Any, **named: Any) -> torch.Tensor:
        loss = cross_entropy(*arguments, **named)
        if models[-1].training:
            seen.losses.append(loss.item())
        return loss

    patch.setattr(story, "build_model", watched_model)
    patch.setattr(story, "build_loader", watched_loader)
    patch.setattr(story, "evaluate", watched_evaluate)
    patch.setattr(story, "build_optimizer", watched_optimizer)
    patch.setattr(story.F, "cross_entropy", watched_loss)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(load_config(SMOKE).data, tmp_path_factory.mktemp("data"))


def own_keys(seen: Observed, seed: int) -> list[int]:
    """Every key that a generator was given, but for the seed's own reach into each library."""
    own = [("seed", seed), ("seed", seed), ("manual_seed", seed)]
    rest = list(seen.seedings)
    for entry in own:
        assert entry in rest, f"set_seed did not reach every library: {entry} is missing"
        rest.remove(entry)
    assert all(key is not None for _, key in rest), "a generator was seeded by the system"
    return [int(key) for _, key in rest]


def test_no_key_is_used_twice(observed):
    """Within a run each generator has a key of its own; runs of two seeds share none."""
    first, second = (own_keys(seen, seed) for seen, seed in zip(observed, SEEDS, strict=True))
    assert len(first) > 2000
    assert len(set(first)) == len(first)
    assert not set(first) & set(second)


def test_the_seed_reaches_every_purpose(observed):
    """Initial weights, order, augmentation and each step's stream all follow the seed."""
    zero, one = observed
    moved = [n for n, t in zero.initial.items() if not torch.equal(t, one.initial[n])]
    assert len(moved) >= 4  # every layer that is drawn; batch norm and constants are not
    assert zero.keys[0] != one.keys[0]
    assert not set(zero.streams) & set(one.streams)


def test_no_two_steps_draw_alike(observed):
    """The stream that dropout draws from is another one at each step."""
    for seen in observed:
        assert len(seen.streams) == len(seen.batches)
        assert len(set(seen.streams)) == len(seen.streams)


def test_an_epoch_takes_no_sample_twice_and_the_next_has_another_order(observed, data):
    """Batches are whole, samples distinct, orders unlike, and neither begins at the beginning."""
    size = load_config(SMOKE).training.global_batch_size
    for seen in observed:
        assert all(len(batch) == size for batch in seen.keys)
        fetched = [key for batch in seen.keys for key in batch]
        epochs = {e: [index for epoch, index in fetched if epoch == e] for e in (0, 1)}
        assert sum(map(len, epochs.values())) == len(fetched)
        for indices in epochs.values():
            assert len(indices) == len(data.train) // size * size
            assert len(set(indices)) == len(indices)
            assert abs(np.corrcoef(indices, np.arange(len(indices)))[0, 1]) < 0.1
        assert sum(a == b for a, b in zip(*epochs.values(), strict=True)) < 10


def test_each_batch_holds_what_its_keys_name(observed, data):
    """The label is the sample's own, and its pixels are the sample's, moved."""
    seen = observed[0]
    for keys, (images, labels) in zip(seen.keys, seen.batches, strict=True):
        assert labels.tolist() == [int(data.train.labels[index]) for _, index in keys]
        for (_, index), image in zip(keys, images.numpy(), strict=True):
            assert shift_of(data.train.images[index], image) is not None


def shift_of(source: np.ndarray, image: np.ndarray) -> tuple[int, int] | None:
    """How far `image` is from `source`, in pixels down and right."""
    padded = np.pad(source, ((0, 0), (1, 1), (1, 1)))
    for top in range(3):
        for left in range(3):
            if np.array_equal(padded[:, top : top + 8, left : left + 8], image):
                return top, left
    return None


def test_augmentation_is_uniform_and_differs_by_sample_and_epoch(observed, data):
    """Each of the nine moves is as frequent as the others; a sample's next epoch is independent."""
    seen = observed[0]
    moves: dict[tuple[int, int], tuple[int, int]] = {}
    for keys, (images, _) in zip(seen.keys, seen.batches, strict=True):
        for key, image in zip(keys, images.numpy(), strict=True):
            moves[key] = shift_of(data.train.images[key[1]], image)
    counts = np.unique([3 * top + left for top, left in moves.values()], return_counts=True)[1]
    expected = len(moves) / 9
    # Chi-square of 8 degrees of freedom: 26 is exceeded once in a thousand.
    assert len(counts) == 9
    assert ((counts - expected) ** 2 / expected).sum() < 26
    both = [index for epoch, index in moves if epoch == 0 and (1, index) in moves]
    same = np.mean([moves[0, index] == moves[1, index] for index in both])
    assert same == pytest.approx(1 / 9, abs=0.04)


def test_augmentation_changes_no_source(data):
    """The data in memory are the same after an epoch of augmentation."""
    before = data.train.images.copy()
    TrainSet(data.train, Data(), seed=0).__getitems__([(0, index) for index in range(100)])
    assert np.array_equal(data.train.images, before)


def test_evaluation_touches_no_weight(observed):
    """The model is the same after each evaluation, its batch statistics included."""
    for seen in observed:
        assert len(seen.evaluations) == 3  # two epochs and the test split
        assert all(before == after for before, after in seen.evaluations)


def test_the_log_holds_exactly_what_was_computed(observed):
    """Each loss of `steps.jsonl` is the loss of that step to the last bit."""
    for seen in observed:
        recorded = [step.numbers["loss"] for step in read_steps(seen.run_dir / "steps.jsonl")]
        assert recorded == seen.losses


def test_every_step_has_the_learning_rate_of_its_number(observed):
    """Warm-up, then cosine decay, at each optimizer step and in the table."""
    training = load_config(SMOKE).training
    for seen in observed:
        how = {"steps_per_epoch": 9, "num_steps": 18, "config": training}
        assert seen.rates == [learning_rate(step, **how) for step in range(18)]
        rows = read_metrics(seen.run_dir / "metrics.csv")
        assert [float(row["learning_rate"]) for row in rows] == [seen.rates[8], seen.rates[17]]


def test_the_learning_rate_rises_and_falls_to_nothing():
    """Linear to its peak at the end of the warm-up, then half a cosine down."""
    training = dataclasses.replace(load_config(SMOKE).training, warmup_epochs=1.0)
    rates = [
        learning_rate(step, steps_per_epoch=10, num_steps=40, config=training) for step in range(40)
    ]
    peak = training.learning_rate
    assert rates[:10] == pytest.approx([peak * (step + 1) / 10 for step in range(10)])
    assert rates[10] == peak
    assert rates[25] == pytest.approx(peak / 2)
    assert 0 < rates[39] < peak / 100


def scores(run_dir: Path, weights: dict[str, torch.Tensor], split) -> tuple[float, float]:
    config = load_config(run_dir / "config.yaml")
    model = build_model(config.model, num_classes=10, mean=(4.884,), std=(6.017,))
    model.load_state_dict(weights)
    return story.evaluate(model, split, config.training.global_batch_size, CPU)


def test_the_best_checkpoint_scores_what_it_is_said_to(observed, data):
    """The first of the best rows of the table, and its weights reach that accuracy again."""
    for seen in observed:
        best = json.loads((seen.run_dir / "manifest.json").read_text())["results"]["best"]
        rows = read_metrics(seen.run_dir / "metrics.csv")
        top = max(rows, key=lambda row: float(row["val_accuracy"]))
        assert (best["step"], best["val_accuracy"]) == (
            int(top["step"]),
            float(top["val_accuracy"]),
        )
        state = load_checkpoint(checkpoint_path(seen.run_dir / "checkpoints", best["step"]), CPU)
        assert scores(seen.run_dir, state["model"], data.val)[1] == best["val_accuracy"]


def test_the_results_are_those_of_the_weights(observed, data):
    """The test metrics of the manifest come out of `model.safetensors` again."""
    from safetensors.torch import load_file

    for seen in observed:
        results = json.loads((seen.run_dir / "manifest.json").read_text())["results"]
        loss, accuracy = scores(
            seen.run_dir, load_file(seen.run_dir / "model.safetensors"), data.test
        )
        assert results["metrics"] == {"test_loss": loss, "test_accuracy": accuracy}


def test_the_switches_of_a_run_are_those_of_its_config(observed):
    """What torch reported during the run: deterministic, no benchmark, exact, one thread."""
    for seen in observed:
        found = json.loads((seen.run_dir / "manifest.json").read_text())["determinism"]
        assert found["deterministic_algorithms"] is True
        assert found["warn_only"] is False
        assert found["fill_uninitialized_memory"] is True
        assert found["cudnn_benchmark"] is False
        assert found["cudnn_deterministic"] is True
        assert found["matmul_precision"] in ("ieee", "highest")
        assert found["num_threads"] == 1


def test_the_splits_are_the_shares_that_were_asked_for(data):
    """About 15 % each for validation and test, of every class."""
    total = len(data.train) + len(data.val) + len(data.test)
    assert total == 1797
    for split in (data.val, data.test):
        assert len(split) / total == pytest.approx(0.15, abs=0.03)
        assert np.bincount(split.labels, minlength=10).min() >= 10


def test_the_splits_are_those_of_every_other_machine(data):
    """Which sample is where is part of the code: one digest for all machines and releases."""
    assert data.describe()["splits"] == {
        "train": "e0fb43931d0b558bd351bbd09455ae6be7a82e61a6ba921e420d2614fb7da022",
        "val": "88bff641e7b53c3c1fe0324a54be97d922c3dc2a14140f2a7b15c600bb0bf54d",
        "test": "e3569f12ca4756baea1caf5b3972bc7d02e8eef5be085bcf77ce869de6d99b28",
    }


def test_images_labels_and_constants_are_the_sources(data):
    """Each image has the label that scikit-learn gives it; mean and deviation are the data's."""
    source = load_digits()
    labels = {
        i.astype(np.uint8).tobytes(): t for i, t in zip(source.images, source.target, strict=True)
    }
    for split in (data.train, data.val, data.test):
        assert [labels[image.tobytes()] for image in split.images] == split.labels.tolist()
    assert data.mean == pytest.approx((source.images.mean(),), abs=5e-4)
    assert data.std == pytest.approx((source.images.std(),), abs=5e-4)
