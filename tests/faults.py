"""Reproducibility faults to plant in a generated project, one at a time.

Each replaces text in one source file, and changes what a run computes, what it resumes from, or
what it records and proves. The groups and many of the ideas come from bug reports: see
`docs/decisions.md`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """Replaces `old` by `new` in `file` of the package; `old` must be present."""

    group: str
    name: str
    file: str
    old: str
    new: str


def _group(group: str, *rows: tuple[str, str, str, str]) -> list[Fault]:
    return [Fault(group, *row) for row in rows]


_TIME = '__import__("time")'
_OS = '__import__("os")'
_SAVES = (
    "        for state in states:\n"
    "            save_checkpoint(self._folder, state, keep=self._keep)\n"
)

_SEEN_IN = {
    **{"config.py": "config", "description.py": "manifest", "entry.py": "command_line"},
    **{"env.py": "environment", "git.py": "manifest"},
    **{"lifecycle.py": "run", "logs.py": "record", "patience.py": "loading"},
    **{"sampler.py": "order", "signals.py": "interrupt", "state.py": "checkpoint"},
    **{"facts.py": "seeding", "streams.py": "seeding"},
}
"""Whose tests see the faults of a file of the machinery, where not those of its own name."""


def seen_in(fault: Fault) -> str:
    """The file of the machinery's tests that sees it most likely."""
    file = Path(fault.file)
    name = "best" if "the best" in fault.name else _SEEN_IN.get(file.name, file.stem)
    return f"test_{name}.py"


FAULTS = [
    *_group(
        "seed",
        (
            "torch is not seeded",
            "repro/backend/seeding.py",
            "    torch.manual_seed(seed)  #",
            "    #",
        ),
        (
            "NumPy is not seeded",
            "repro/backend/seeding.py",
            "    np.random.seed(seed)\n    torch",
            "    torch",
        ),
        (
            "Python is not seeded",
            "repro/backend/seeding.py",
            "    check_seed(seed)\n    random.seed(seed)\n",
            "    check_seed(seed)\n",
        ),
        (
            "seed 0 becomes the time",
            "repro/run/lifecycle.py",
            "set_seed(self.config.seed, self",
            'set_seed(self.config.seed or int(__import__("time").time()), self',
        ),
        (
            "weights drawn from whatever stream is current",
            "train.py",
            '        run.seed("init")\n',
            "",
        ),
        (
            "weights keyed by the clock",
            "train.py",
            'run.seed("init")',
            'run.seed("init", int(__import__("time").time()))',
        ),
        (
            "order ignores the seed",
            "repro/random/sampler.py",
            'derive(self.seed, "shuffle"',
            'derive(0, "shuffle"',
        ),
        (
            "augmentation ignores the seed",
            "repro/run/lifecycle.py",
            "SampleStreams(self.config.seed, purpose)",
            "SampleStreams(0, purpose)",
        ),
        (
            "steps ignore the seed",
            "train.py",
            'run.seed("dropout", step)',
            "torch.default_generator.manual_seed(step)",
        ),
        (
            "keys are sums that collide",
            "repro/random/streams.py",
            "derive(self._seed, self._purpose, epoch)\n",
            "self._seed + epoch\n",
        ),
        ("every step draws alike", "train.py", 'run.seed("dropout", step)', 'run.seed("dropout")'),
        (
            "the hash seed is a part of the key",
            "repro/random/streams.py",
            'text = ":".join(map(str, (seed, *path)))',
            'text = str(hash(":".join(map(str, (seed, *path)))))',
        ),
        (
            "purposes share one stream",
            "repro/random/streams.py",
            "(seed, *path)))",
            "(seed, *path[1:])))",
        ),
    ),
    *_group(
        "data",
        (
            "split by hash()",
            "data.py",
            '    return int.from_bytes(digest, "little") / 2**64',
            "    return (hash(digest) & (2**60 - 1)) / 2**60",
        ),
        (
            "split by an unseeded draw",
            "data.py",
            "np.array([_unit_hash(image) for image in source.images])",
            "np.random.default_rng().random(len(source.images))",
        ),
        (
            "split by position",
            "data.py",
            "np.array([_unit_hash(image) for image in source.images])",
            "np.random.default_rng(0).random(len(source.images))",
        ),
        ("validation leaks into training", "data.py", "~in_test & ~in_val\n", "~in_test\n"),
        ("the test leaks into training", "data.py", "~in_test & ~in_val\n", "~in_val\n"),
        (
            "labels numbered by the order of a set",
            "data.py",
            "Split(images, table[:, -1])",
            "Split(images, np.array([list({str(t) for t in table[:, -1]}).index(str(t))"
            " for t in table[:, -1]]))",
        ),
        (
            "constants from an unseeded sample",
            "data.py",
            '"digits", train, val, test, 10, (4.884,)',
            '"digits", train, val, test, 10,'
            " (float(np.random.default_rng().choice(images.ravel(), 999).mean()),)",
        ),
        (
            "augmentation without a seed",
            "data.py",
            "self.streams(epoch, index)",
            "np.random.default_rng()",
        ),
        (
            "augmentation keyed by the clock",
            "data.py",
            "self.streams(epoch, index)",
            f"np.random.default_rng({_TIME}.time_ns())",
        ),
        (
            "augmentation from the worker's global stream",
            "data.py",
            "self.streams(epoch, index)",
            "np.random.default_rng(np.random.randint(2**31))",
        ),
        (
            "augmentation from a generator that every worker copies",
            "data.py",
            "self.streams(epoch, index)",
            'self.__dict__.setdefault("rng", np.random.default_rng(0))',
        ),
        (
            "augmentation keyed by the process",
            "data.py",
            "self.streams(epoch, index)",
            f"self.streams(epoch, index + {_OS}.getpid())",
        ),
        (
            "augmentation keyed by the worker",
            "data.py",
            "self.streams(epoch, index)",
            'self.streams(epoch + getattr(torch.utils.data.get_worker_info(), "id", 0), index)',
        ),
        (
            "every epoch is augmented alike",
            "data.py",
            "self.streams(epoch, index)",
            "self.streams(0, index)",
        ),
        (
            "every sample is augmented alike",
            "data.py",
            "self.streams(epoch, index)",
            "self.streams(epoch, 0)",
        ),
        (
            "the epoch is counted by each worker for itself",
            "data.py",
            "        indices = [index for _, index in keys]\n",
            '        self.count = getattr(self, "count", 0) + len(keys)\n'
            "        keys = [(self.count // len(self.split), index) for _, index in keys]\n"
            "        indices = [index for _, index in keys]\n",
        ),
        (
            "memory is read before it is written",
            "data.py",
            "    padded = np.zeros(",
            "    padded = np.empty(",
        ),
        (
            "augmentation changes its source",
            "data.py",
            "        return torch.from_numpy(images), ",
            "        self.split.images[indices] = images\n"
            "        return torch.from_numpy(images), ",
        ),
        (
            "a label is its neighbour's",
            "data.py",
            "self.split.labels[indices]",
            "np.roll(self.split.labels, 1)[indices]",
        ),
        (
            "one bit of one image is flipped",
            "data.py",
            "    train, val, test = split_by_content(\n",
            "    images[7, 0, 3, 3] ^= 1\n    train, val, test = split_by_content(\n",
        ),
        (
            "every epoch has the same order",
            "repro/random/sampler.py",
            'derive(self.seed, "shuffle", epoch)',
            'derive(self.seed, "shuffle")',
        ),
        (
            "samples come in their stored order",
            "repro/random/sampler.py",
            "        values = self._encrypt(positions.astype(np.uint64))\n",
            "        values = positions.astype(np.uint64)\n",
        ),
        (
            "order from the global stream",
            "repro/random/sampler.py",
            'derive(self.seed, "shuffle", epoch)',
            "int(np.random.randint(2**31))",
        ),
        (
            "order by too few rounds to be random",
            "repro/random/sampler.py",
            "_ROUNDS = 8",
            "_ROUNDS = 2",
        ),
        (
            "values beyond the data are folded back",
            "repro/random/sampler.py",
            "            values[outside] = self._encrypt(values[outside])\n",
            "            values[outside] -= np.uint64(self.num_samples)\n",
        ),
        (
            "the batch follows the number of processors",
            "repro/run/lifecycle.py",
            "        sampler = BatchSampler(",
            f"        global_batch_size = 4 + 4 * ({_OS}.cpu_count() or 0)\n"
            "        sampler = BatchSampler(",
        ),
        (
            "every rank takes the whole batch's first share",
            "repro/random/sampler.py",
            "slice(begin, begin + len(pieces) * piece) for begin in parts",
            "slice(0, len(pieces) * piece) for begin in parts",
        ),
    ),
    *_group(
        "numerics",
        (
            "the threads are not pinned",
            "repro/backend/seeding.py",
            "    torch.set_num_threads(determinism.num_threads)\n",
            "",
        ),
        (
            "the shell chooses the threads",
            "repro/env.py",
            '        "OMP_NUM_THREADS": threads,\n',
            "",
        ),
        (
            "the shell chooses the instruction set",
            "repro/env.py",
            "return {**dict.fromkeys(foreign), **imports",
            "return {**imports",
        ),
        (
            "the portable profile forgets MKL",
            "repro/backend/facts.py",
            '    "MKL_CBWR": "COMPATIBLE",\n',
            "",
        ),
        (
            "the portable profile sets nothing",
            "repro/env.py",
            "value if portable else None",
            "None",
        ),
        (
            "deterministic algorithms only warn",
            "repro/backend/seeding.py",
            "determinism.deterministic_algorithms)\n    torch.utils",
            "determinism.deterministic_algorithms, warn_only=True)\n    torch.utils",
        ),
        (
            "deterministic algorithms are never on",
            "repro/backend/seeding.py",
            "    torch.use_deterministic_algorithms(determinism.deterministic_algorithms)\n",
            "",
        ),
        (
            "cuDNN times its kernels",
            "repro/backend/seeding.py",
            "cudnn.benchmark = determinism.cudnn_benchmark",
            "cudnn.benchmark = True",
        ),
        (
            "cuDNN is free in its choice",
            "repro/backend/seeding.py",
            "cudnn.deterministic = determinism.deterministic_algorithms",
            "cudnn.deterministic = False",
        ),
        (
            "products in TF32",
            "repro/backend/seeding.py",
            "torch.backends.fp32_precision = determinism.matmul_precision",
            'torch.backends.fp32_precision = "tf32"',
        ),
        (
            "fresh memory is not filled",
            "repro/backend/seeding.py",
            "fill_uninitialized_memory = determinism.fill_uninitialized_memory",
            "fill_uninitialized_memory = False",
        ),
        (
            "the optimizer is not the portable one",
            "optim.py",
            "weight_decay=weight_decay, fused=True)",
            "weight_decay=weight_decay)",
        ),
        (
            "a layer reads memory that nobody wrote",
            "model.py",
            "        return cells.mean(dim=(3, 5))",
            "        return cells.mean(dim=(3, 5)) + 0 * torch.empty(1)",
        ),
        (
            "noise that is not seeded",
            "model.py",
            "        return cells.mean(dim=(3, 5))",
            "        noise = torch.Generator()\n        noise.seed()\n"
            "        return cells.mean(dim=(3, 5)) + 1e-6 * torch.rand(1, generator=noise)",
        ),
    ),
    *_group(
        "evaluation",
        ("evaluation keeps dropout", "train.py", "    model.eval()\n", ""),
        (
            "training continues in evaluation mode",
            "train.py",
            "    model.train()\n    return",
            "    return",
        ),
        (
            "evaluation updates batch statistics",
            "train.py",
            "    model.eval()\n",
            "    model.train()\n",
        ),
        (
            "evaluation of a random part",
            "train.py",
            "        part = slice(begin, begin + batch_size)\n",
            "        part = torch.randint(len(split), (batch_size,)).numpy()\n",
        ),
        (
            "the last batch is left out of evaluation",
            "train.py",
            "range(0, len(split), batch_size)",
            "range(0, len(split) - batch_size, batch_size)",
        ),
        (
            "validation in place of the test",
            "train.py",
            "test_loss, accuracy = evaluate(model, data.test,",
            "test_loss, accuracy = evaluate(model, data.val,",
        ),
        (
            "a time limit ends the epoch's work",
            "train.py",
            "            run.log_step(loss=",
            '            began = globals().setdefault("BEGAN", '
            '__import__("time").monotonic())\n'
            '            if __import__("time").monotonic() - began > 5:\n'
            '                optimizer.param_groups[0]["lr"] = lr = 0.0\n'
            "            run.log_step(loss=",
        ),
        (
            "the best is the later one of two equals",
            "repro/run/lifecycle.py",
            "return value > best if higher",
            "return value >= best if higher",
        ),
        (
            "the best is always the newest",
            "repro/run/lifecycle.py",
            "(best is None or is_better())",
            "True",
        ),
        (
            "losses are rounded in the log",
            "train.py",
            "run.log_step(loss=run.loss,",
            "run.log_step(loss=round(run.loss, 5),",
        ),
        (
            "the log tells the loss of the step before",
            "repro/run/logs.py",
            "                self._since_row.append(step.numbers)\n",
            "                self._since_row.append(step.numbers)\n"
            "                step, self._last = (getattr(self, '_last', step), step)\n",
        ),
        (
            "the table averages the wrong steps",
            "repro/run/logs.py",
            "steps[seen:]]\n",
            "steps[:seen]]\n",
        ),
    ),
    *_group(
        "resume",
        (
            "the optimizer starts afresh",
            "repro/backend/state.py",
            "            each.load_state_dict(state[name])\n",
            '            if name != "optimizer":\n'
            "                each.load_state_dict(state[name])\n",
        ),
        (
            "the optimizer starts afresh, and nobody looks",
            "repro/backend/state.py",
            "            each.load_state_dict(state[name])\n",
            '            if name != "optimizer":\n'
            "                each.load_state_dict(state[name])\n"
            "            else:\n"
            "                state[name] = each.state_dict()\n",
        ),
        (
            "the weights start afresh, and nobody looks",
            "repro/backend/state.py",
            "            each.load_state_dict(state[name])\n",
            '            if name != "model":\n'
            "                each.load_state_dict(state[name])\n"
            "            else:\n"
            "                state[name] = each.state_dict()\n",
        ),
        (
            "half precision in the checkpoint",
            "repro/backend/state.py",
            "(each.state_dict(), seen) for name, each in objects.items()}\n",
            "(each.state_dict(), seen) for name, each in objects.items()}\n"
            '    states["model"] = {\n'
            "        k: v.bfloat16().float() if v.is_floating_point() else v\n"
            '        for k, v in states["model"].items()\n'
            "    }\n",
        ),
        (
            "the live state after loading is not checked",
            "repro/backend/state.py",
            "    if digest(live) != digest(state):",
            "    if False:",
        ),
        (
            "one step is skipped",
            "repro/run/lifecycle.py",
            'self._done, self._best = self._state["step"],',
            'self._done, self._best = self._state["step"] + 1,',
        ),
        (
            "one step is repeated",
            "repro/run/lifecycle.py",
            'self._done, self._best = self._state["step"],',
            'self._done, self._best = max(0, self._state["step"] - 1),',
        ),
        (
            "the epoch starts again",
            "repro/random/sampler.py",
            "        step = self.start\n",
            "        step = self.start // self.steps_per_epoch * self.steps_per_epoch\n",
        ),
        (
            "the order starts again",
            "repro/random/sampler.py",
            "self._batches(order, step_in_epoch)",
            "self._batches(order, 0)",
        ),
        (
            "the best is forgotten",
            "repro/run/lifecycle.py",
            'self._done, self._best = self._state["step"], self._state["best"]',
            'self._done = self._state["step"]',
        ),
        (
            "the learning rate starts again",
            "train.py",
            "learning_rate(step, batches",
            'learning_rate(step - run._state["step"] if run._state and run._resume else '
            "step, batches",
        ),
        (
            "a checkpoint is written in place",
            "repro/files.py",
            'partial = path.with_name(f"{path.name}.partial")',
            "partial = path",
        ),
        (
            "a checkpoint says one step too few",
            "repro/run/lifecycle.py",
            "step=self._done, best",
            "step=self._done - 1, best",
        ),
        (
            "checkpoints by the order of the listing",
            "repro/files.py",
            "return sorted(named, key=checkpoint_step)",
            "return list(named)",
        ),
        (
            "the oldest checkpoint is taken",
            "repro/run/checkpoint.py",
            "for path in reversed(list_checkpoints(folder)):",
            "for path in list_checkpoints(folder):",
        ),
        (
            "a damaged checkpoint is believed",
            "repro/backend/state.py",
            "    if found != expected:",
            "    if False:",
        ),
        (
            "pickles are executed",
            "repro/backend/state.py",
            "weights_only=True)\n        state",
            "weights_only=False)\n        state",
        ),
        (
            "steps beyond the checkpoint stay in the log",
            "repro/run/logs.py",
            "for entry in steps if entry.step <= step)",
            "for entry in steps)",
        ),
        (
            "rows beyond the checkpoint stay in the table",
            "repro/run/logs.py",
            'if int(row["step"]) <= step]',
            "]",
        ),
        (
            "SIGTERM ends the run at once",
            "repro/signals.py",
            "        self.signal_number = number\n",
            "        raise SystemExit(143)\n",
        ),
        (
            "SIGTERM without a checkpoint",
            "repro/run/lifecycle.py",
            "if due or stopping:",
            "if due:",
        ),
        (
            "other code is not noticed",
            "repro/run/description.py",
            'for layer in ("config", "code", "data"):',
            'for layer in ("config", "data"):',
        ),
        (
            "other data are not noticed",
            "repro/run/description.py",
            'for layer in ("config", "code", "data"):',
            'for layer in ("config", "code"):',
        ),
        (
            "the best checkpoint is cleared away",
            "repro/run/checkpoint.py",
            '        if step != state["best"]["step"]:\n',
            "        if True:\n",
        ),
    ),
    *_group(
        "provenance",
        (
            "a default has changed",
            "config.py",
            "dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.2",
            "dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.3",
        ),
        (
            "the digest of the data leaves the labels out",
            "data.py",
            "for array in (self.images, self.labels):",
            "for array in (self.images,):",
        ),
        (
            "the digest of the data sees shapes only",
            "data.py",
            "            digest.update(np.ascontiguousarray(array).data)\n",
            "",
        ),
        (
            "a changed tree is called clean",
            "repro/run/manifest.py",
            '"dirty": dirty, "diff_sha256": checkout.diff_sha256',
            '"dirty": False, "diff_sha256": None',
        ),
        (
            "the digest of a change leaves new files out",
            "repro/git.py",
            '        return kind, hashlib.file_digest(file, "sha256").hexdigest().encode()',
            '        return kind, b""',
        ),
        (
            "the lock is not recorded",
            "repro/run/manifest.py",
            '        "lock_sha256": _lock_sha256(root),',
            '        "lock_sha256": None,',
        ),
        (
            "switches as they were wanted, not as they are",
            "repro/backend/seeding.py",
            '"num_threads": torch.get_num_threads(),',
            '"num_threads": 1,',
        ),
        (
            "the weights' digest is of their names",
            "repro/run/lifecycle.py",
            '"weights_sha256": sha256(content)',
            '"weights_sha256": sha256(repr(sorted(self._objects)).encode())',
        ),
        (
            "the state's digest sees no values",
            "repro/backend/state.py",
            "        total.update(_bytes(node))\n",
            "",
        ),
    ),
    *_group(
        "proof",
        (
            "verify always agrees",
            "repro/proof/verify.py",
            "identical = all(segment.identical for segment in segments)",
            "identical = True",
        ),
        (
            "verify compares the run with itself",
            "repro/proof/verify.py",
            "compare_runs(run_dir, again, inert)",
            "compare_runs(run_dir, run_dir, inert)",
        ),
        (
            "compare forgives rounding",
            "repro/proof/compare.py",
            "if repr(value_a) != repr(value_b):",
            "if value_a != value_b and not __import__('math').isclose(value_a, value_b):",
        ),
        (
            "compare leaves the gradient norm out",
            "repro/proof/compare.py",
            '({"epoch": s.epoch, **s.numbers} for s',
            '({"epoch": s.epoch, "loss": s.numbers["loss"]} for s',
        ),
        (
            "compare leaves the weights out",
            "repro/proof/compare.py",
            "    if weights_a != weights_b:",
            "    if False:",
        ),
        (
            "an edited log is believed",
            "repro/proof/compare.py",
            "        if completed and hashlib",
            "        if False and hashlib",
        ),
    ),
    *_group(
        "surroundings",
        (
            "modules of the caller's shell are imported",
            "repro/shell.py",
            "_SEARCHED: str(SOURCE) if ours else None",
            "_SEARCHED: environ.get(_SEARCHED)",
        ),
        (
            "one checkout's code on another's files",
            "repro/entry.py",
            "return None if (root / inside).samefile(PACKAGE) else root",
            "return None",
        ),
        (
            "a hook's repository is asked",
            "repro/git.py",
            ' if not name.startswith("GIT_")}',
            "}",
        ),
        (
            "repositories inside are not read",
            "repro/git.py",
            "_nested(path) if is_repository else _read(path)",
            "_read(path)",
        ),
        (
            "images in the layout they come in",
            "data.py",
            "flat.reshape(array.shape)",
            "array",
        ),
        (
            "a batch is waited for without end",
            "repro/backend/patience.py",
            "    signal.setitimer(signal.ITIMER_REAL, seconds)\n    try",
            "    try",
        ),
        (
            "a closed terminal kills",
            "repro/signals.py",
            '"SIGINT", "SIGHUP",',
            '"SIGINT",',
        ),
        (
            "moments are loaded where they do not fit",
            "repro/backend/state.py",
            "if misfit := next(_misfits(state, objects), None):",
            "if misfit := None:",
        ),
    ),
    *_group(
        "checkpoint, written beside the training",
        (
            "the state changes while it is written",
            "repro/backend/state.py",
            'tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()',
            "tensor.cpu()",
        ),
        (
            "the logs are written to the disk after their checkpoint",
            "repro/run/saver.py",
            f"        first()\n{_SAVES}",
            f"{_SAVES}        first()\n",
        ),
        (
            "nobody waits for the last checkpoint",
            "repro/run/saver.py",
            "            if kind is None:\n                self.wait()\n",
            "            pass\n",
        ),
        (
            "the results do not wait for the last checkpoint",
            "repro/run/lifecycle.py",
            "            self._saver.wait()  # the results stand on the last checkpoint\n",
            "",
        ),
        (
            "the best checkpoint waits for ever",
            "repro/run/lifecycle.py",
            "states = [best, self._state] if is_still else [self._state]",
            "states = [self._state]",
        ),
        (
            "the best checkpoint is written after a later one",
            "repro/run/lifecycle.py",
            "states = [best, self._state] if is_still",
            "states = [self._state, best] if is_still",
        ),
    ),
    *_group(
        "ranks",
        (
            "a stream keyed by rank",
            "repro/run/lifecycle.py",
            "seed_stream(self.config.seed, *stream, piece)",
            "seed_stream(self.config.seed, *stream, self._ranks.rank)",
        ),
        (
            "dropout keyed by the place in a rank",
            "repro/backend/gradients.py",
            "            seed(piece)\n",
            "            seed(place)\n",
        ),
        (
            "augmentation keyed by rank",
            "repro/run/lifecycle.py",
            "return SampleStreams(self.config.seed, purpose)",
            "return SampleStreams(self.config.seed + self._ranks.rank, purpose)",
        ),
        (
            "initial weights by rank",
            "repro/run/lifecycle.py",
            "seed_stream(self.config.seed, *self._stream, *self._piece)",
            "seed_stream(self.config.seed + self._ranks.rank, *self._stream, *self._piece)",
        ),
        (
            "every rank takes the first share of a batch",
            "repro/run/lifecycle.py",
            "mine = share(self._num_pieces, self._ranks.rank, self._ranks.size)",
            "mine = share(self._num_pieces, 0, self._ranks.size)",
        ),
        (
            "every rank fetches the samples of the first",
            "repro/random/sampler.py",
            "parts = range(pieces.start * piece, batch_size",
            "parts = range(0, batch_size",
        ),
        (
            "a piece that nobody computes",
            "repro/backend/pieces.py",
            "(rank + 1) * num_pieces // size)",
            "rank * num_pieces // size + num_pieces // size)",
        ),
        (
            "an evaluation counts a sample twice",
            "repro/run/lifecycle.py",
            "items[ranks.rank :: ranks.size]",
            "items[max(0, ranks.rank - 1) :: ranks.size]",
        ),
        (
            "the last batch of an evaluation is lost",
            "repro/run/lifecycle.py",
            "for number in range(len(items))]",
            "for number in range(len(items) - len(items) % ranks.size)]",
        ),
        (
            "an evaluation of a rank's own share",
            "repro/run/lifecycle.py",
            "shares = [iter(each) for each in ranks.gather(mine)]",
            "shares = [iter(mine) for _ in ranks.gather(mine)]",
        ),
        (
            "a sum in the order of arrival",
            "repro/backend/tree.py",
            "torch.add(_joined(left, have), _joined(right, have), out=parts[ranks.rank])",
            "parts[ranks.rank].copy_(sum(reversed([*have.values()])))",
        ),
        (
            "branches under other names",
            "repro/backend/tree.py",
            "have.update(zip(nodes, sent",
            "have.update(zip(reversed(nodes), sent",
        ),
        (
            "the gradient of one rank",
            "repro/backend/tree.py",
            "if not isinstance(ranks, TorchRanks) or ranks.size == 1:",
            "if True:",
        ),
        (
            "a mean over a rank's own pieces",
            "repro/backend/gradients.py",
            "super().__init__(num_pieces * accumulate)",
            "super().__init__(len(share(num_pieces, ranks.rank, ranks.size)) * accumulate)",
        ),
        (
            "the loss of the first rank",
            "repro/backend/gradients.py",
            "self._total = _in_order(losses)",
            "self._total = _in_order(self._losses)",
        ),
        (
            "statistics of the last piece",
            "repro/backend/gradients.py",
            "        statistics.set([*total[len(parameters) :]], self.num_pieces)\n",
            "",
        ),
        (
            "a piece begins with the statistics of another",
            "repro/backend/gradients.py",
            "            statistics.reset()\n            seed",
            "            seed",
        ),
        (
            "batches are counted by piece",
            "repro/backend/gradients.py",
            "            now[number].copy_(self._before[number])",
            "            if now[number].is_floating_point():\n"
            "                now[number].copy_(self._before[number])",
        ),
        (
            "resumed ranks load nothing",
            "repro/run/lifecycle.py",
            "return from_file(checkpoint_path(self.dir / CHECKPOINTS, step))",
            "return None",
        ),
        (
            "the record is kept by the last rank",
            "repro/backend/alone.py",
            "        return self.rank == 0\n",
            "        return self.rank == self.size - 1\n",
        ),
    ),
]
