"""Reproducibility faults to plant in a generated project, one at a time.

Each replaces text of one source file, and changes what a run computes, what it resumes from, or
what it records and proves. Groups and many of the ideas are those that users report: see
`docs/decisions.md`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`old` in `file` of the package becomes `new`; `old` must be there."""

    group: str
    name: str
    file: str
    old: str
    new: str


def _group(group: str, *rows: tuple[str, str, str, str]) -> list[Fault]:
    return [Fault(group, *row) for row in rows]


_TIME = '__import__("time")'
_OS = '__import__("os")'
_STEP_LOGGED = "            progress.step()\n            is_best"

FAULTS = [
    *_group(
        "seed",
        ("torch is not seeded", "seeding.py", "    torch.manual_seed(seed)  #", "    #"),
        ("NumPy is not seeded", "seeding.py", "    np.random.seed(seed)\n    torch", "    torch"),
        (
            "Python is not seeded",
            "seeding.py",
            "    check_seed(seed)\n    random.seed(seed)\n",
            "    check_seed(seed)\n",
        ),
        (
            "seed 0 becomes the time",
            "train.py",
            "    set_seed(config.seed,",
            f"    set_seed(config.seed or int({_TIME}.time()),",
        ),
        (
            "weights drawn from whatever stream is current",
            "train.py",
            '    seed_stream(config.seed, "init")\n',
            "",
        ),
        (
            "weights keyed by the clock",
            "train.py",
            'seed_stream(config.seed, "init")',
            f'seed_stream(int({_TIME}.time()), "init")',
        ),
        (
            "order ignores the seed",
            "order.py",
            'derive(self.seed, "shuffle"',
            'derive(0, "shuffle"',
        ),
        ("augmentation ignores the seed", "data.py", "SampleStreams(seed)", "SampleStreams(0)"),
        (
            "steps ignore the seed",
            "train.py",
            'seed_stream(config.seed, "dropout", step)',
            'seed_stream(0, "dropout", step)',
        ),
        (
            "keys are sums that collide",
            "seeding.py",
            'derive(self._seed, "augment", epoch)\n        self._key[1] = index',
            "self._seed + epoch\n        self._key[1] = index",
        ),
        (
            "every step draws alike",
            "train.py",
            'seed_stream(config.seed, "dropout", step)',
            'seed_stream(config.seed, "dropout")',
        ),
        (
            "steps draw from the global stream",
            "train.py",
            '            seed_stream(config.seed, "dropout", step)\n',
            "",
        ),
        (
            "the hash seed is a part of the key",
            "seeding.py",
            'text = ":".join(map(str, (seed, *path)))',
            'text = str(hash(":".join(map(str, (seed, *path)))))',
        ),
        (
            "purposes share one stream",
            "seeding.py",
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
            "Split(images, source.target.astype(np.int64))",
            "Split(images, np.array([list({str(t) for t in source.target}).index(str(t))"
            " for t in source.target]))",
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
            "order.py",
            'derive(self.seed, "shuffle", epoch)',
            'derive(self.seed, "shuffle")',
        ),
        (
            "samples come in their stored order",
            "order.py",
            "        values = self._encrypt(positions.astype(np.uint64))\n",
            "        values = positions.astype(np.uint64)\n",
        ),
        (
            "order from the global stream",
            "order.py",
            'derive(self.seed, "shuffle", epoch)',
            "int(np.random.randint(2**31))",
        ),
        (
            "order by too few rounds to be random",
            "order.py",
            "_ROUNDS = 8",
            "_ROUNDS = 2",
        ),
        (
            "values beyond the data are folded back",
            "order.py",
            "            values[outside] = self._encrypt(values[outside])\n",
            "            values[outside] -= np.uint64(self.num_samples)\n",
        ),
        (
            "the batch follows the number of processors",
            "train.py",
            "    sampler = BatchSampler(",
            f"    batch_size -= {_OS}.cpu_count() or 0\n    sampler = BatchSampler(",
        ),
        (
            "every rank takes the whole batch's first share",
            "order.py",
            "slice(rank * share, (rank + 1) * share)",
            "slice(0, share)",
        ),
    ),
    *_group(
        "numerics",
        (
            "the threads are not pinned",
            "seeding.py",
            "    torch.set_num_threads(determinism.num_threads)\n",
            "",
        ),
        (
            "the shell chooses the threads",
            "environment.py",
            '        "OMP_NUM_THREADS": threads,\n',
            "",
        ),
        (
            "the shell chooses the instruction set",
            "environment.py",
            "return {**dict.fromkeys(foreign), **imports",
            "return {**imports",
        ),
        (
            "the portable profile forgets MKL",
            "shell.py",
            '    "MKL_CBWR": "COMPATIBLE",\n',
            "",
        ),
        (
            "the portable profile sets nothing",
            "environment.py",
            "value if portable else None",
            "None",
        ),
        (
            "deterministic algorithms only warn",
            "seeding.py",
            "determinism.deterministic_algorithms)\n    torch.utils",
            "determinism.deterministic_algorithms, warn_only=True)\n    torch.utils",
        ),
        (
            "deterministic algorithms are never on",
            "seeding.py",
            "    torch.use_deterministic_algorithms(determinism.deterministic_algorithms)\n",
            "",
        ),
        (
            "cuDNN times its kernels",
            "seeding.py",
            "cudnn.benchmark = determinism.cudnn_benchmark",
            "cudnn.benchmark = True",
        ),
        (
            "cuDNN is free in its choice",
            "seeding.py",
            "cudnn.deterministic = determinism.deterministic_algorithms",
            "cudnn.deterministic = False",
        ),
        (
            "products in TF32",
            "seeding.py",
            "torch.backends.fp32_precision = determinism.matmul_precision",
            'torch.backends.fp32_precision = "tf32"',
        ),
        (
            "fresh memory is not filled",
            "seeding.py",
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
            "test_accuracy = evaluate(model, data.test,",
            "test_accuracy = evaluate(model, data.val,",
        ),
        (
            "a time limit ends the epoch's work",
            "train.py",
            _STEP_LOGGED,
            f"            began = globals().setdefault('BEGAN', {_TIME}.monotonic())\n"
            f"            if {_TIME}.monotonic() - began > 5:\n"
            "                optimizer.param_groups[0]['lr'] = 0.0\n                lr = 0.0\n"
            + _STEP_LOGGED,
        ),
        (
            "the best is the later one of two equals",
            "train.py",
            'val_accuracy > best["val_accuracy"]',
            'val_accuracy >= best["val_accuracy"]',
        ),
        (
            "the best is always the newest",
            "train.py",
            'is_best = val_accuracy > best["val_accuracy"]',
            "is_best = True",
        ),
        (
            "losses are rounded in the log",
            "train.py",
            '{"loss": loss.item(),',
            '{"loss": round(loss.item(), 5),',
        ),
        (
            "the log tells the loss of the step before",
            "record.py",
            '        line = f"{step.to_json()}',
            "        step, self._last = (getattr(self, '_last', step), step)\n"
            '        line = f"{step.to_json()}',
        ),
        (
            "the table averages the wrong steps",
            "record.py",
            "steps[seen:]]\n",
            "steps[:seen]]\n",
        ),
    ),
    *_group(
        "resume",
        (
            "the optimizer starts afresh",
            "checkpoint.py",
            '        optimizer.load_state_dict(state["optimizer"])\n',
            "",
        ),
        (
            "the optimizer starts afresh, and nobody looks",
            "checkpoint.py",
            '        optimizer.load_state_dict(state["optimizer"])\n',
            '        state["optimizer"] = optimizer.state_dict()\n',
        ),
        (
            "the weights start afresh, and nobody looks",
            "checkpoint.py",
            '        model.load_state_dict(state["model"])\n',
            '        state["model"] = model.state_dict()\n',
        ),
        (
            "half precision in the checkpoint",
            "checkpoint.py",
            'state | {"model": model.state_dict(),',
            'state | {"model": {k: v.bfloat16().float() if v.is_floating_point() else v'
            " for k, v in model.state_dict().items()},",
        ),
        (
            "the live state after loading is not checked",
            "checkpoint.py",
            "    if digest(live) != digest(state):",
            "    if False:",
        ),
        (
            "one step is skipped",
            "train.py",
            'start = state["step"] if state else 0',
            'start = state["step"] + 1 if state else 0',
        ),
        (
            "one step is repeated",
            "train.py",
            'start = state["step"] if state else 0',
            'start = max(0, state["step"] - 1) if state else 0',
        ),
        (
            "the epoch starts again",
            "order.py",
            "        step = self.start\n",
            "        step = self.start // self.steps_per_epoch * self.steps_per_epoch\n",
        ),
        (
            "the order starts again",
            "order.py",
            "self._batches(order, step_in_epoch)",
            "self._batches(order, 0)",
        ),
        (
            "the best is forgotten",
            "train.py",
            'best = state["best"] if state else {"step": 0, "val_accuracy": -1.0}',
            'best = {"step": 0, "val_accuracy": -1.0}',
        ),
        (
            "the learning rate starts again",
            "train.py",
            "                step, steps_per_epoch",
            "                step - start, steps_per_epoch",
        ),
        (
            "a checkpoint is written in place",
            "checkpoint.py",
            'partial = path.with_suffix(".partial")\n    with partial.open("wb")',
            'partial = path\n    with partial.open("wb")',
        ),
        (
            "a checkpoint says one step too few",
            "checkpoint.py",
            'state = {"step": step,',
            'state = {"step": step - 1,',
        ),
        (
            "checkpoints by the order of the listing",
            "checkpoint.py",
            "    return sorted((p for p",
            "    return list(folder.glob('step-*.pt'))\n    return sorted((p for p",
        ),
        (
            "the oldest checkpoint is taken",
            "checkpoint.py",
            "for path in reversed(list_checkpoints(folder)):",
            "for path in list_checkpoints(folder):",
        ),
        (
            "a damaged checkpoint is believed",
            "checkpoint.py",
            "    if found != expected:",
            "    if False:",
        ),
        (
            "pickles are executed",
            "checkpoint.py",
            "weights_only=True",
            "weights_only=False",
        ),
        (
            "steps beyond the checkpoint stay in the log",
            "record.py",
            "for entry in steps if entry.step <= step)",
            "for entry in steps)",
        ),
        (
            "rows beyond the checkpoint stay in the table",
            "record.py",
            'if int(row["step"]) <= step]',
            "]",
        ),
        (
            "SIGTERM ends the run at once",
            "interrupt.py",
            "        self.signal_number = number\n",
            "        raise SystemExit(143)\n",
        ),
        (
            "SIGTERM without a checkpoint",
            "train.py",
            "if due or is_best or stopping:",
            "if due or is_best:",
        ),
        (
            "other code is not noticed",
            "run.py",
            'for layer in ("config", "code", "data"):',
            'for layer in ("config", "data"):',
        ),
        (
            "other data are not noticed",
            "run.py",
            'for layer in ("config", "code", "data"):',
            'for layer in ("config", "code"):',
        ),
        (
            "the best checkpoint is cleared away",
            "checkpoint.py",
            '        if step != state["best"]["step"]:\n',
            "        if True:\n",
        ),
    ),
    *_group(
        "provenance",
        (
            "a default has changed",
            "config.py",
            "    dropout: Annotated[float, Range(0, 0.95)] = 0.2",
            "    dropout: Annotated[float, Range(0, 0.95)] = 0.3",
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
            "manifest.py",
            '"dirty": dirty, "diff_sha256": checkout.diff_sha256',
            '"dirty": False, "diff_sha256": None',
        ),
        (
            "the digest of a change leaves new files out",
            "git.py",
            '        return kind, hashlib.file_digest(file, "sha256").hexdigest().encode()',
            '        return kind, b""',
        ),
        (
            "the lock is not recorded",
            "manifest.py",
            '        "lock_sha256": _lock_sha256(root),',
            '        "lock_sha256": None,',
        ),
        (
            "switches as they were wanted, not as they are",
            "seeding.py",
            '"num_threads": torch.get_num_threads(),',
            '"num_threads": 1,',
        ),
        (
            "the weights' digest is of their names",
            "checkpoint.py",
            "        total.update(_bytes(weights[name]))\n    return",
            "        total.update(name.encode())\n    return",
        ),
        (
            "the state's digest sees no values",
            "checkpoint.py",
            "        total.update(_bytes(node))\n",
            "",
        ),
    ),
    *_group(
        "proof",
        (
            "verify always agrees",
            "verify.py",
            "identical = all(stretch.identical for stretch in stretches)",
            "identical = True",
        ),
        (
            "verify compares the run with itself",
            "verify.py",
            "result = compare_runs(run_dir, again)",
            "result = compare_runs(run_dir, run_dir)",
        ),
        (
            "compare forgives rounding",
            "compare.py",
            "if repr(value_a) != repr(value_b):",
            "if value_a != value_b and not __import__('math').isclose(value_a, value_b):",
        ),
        (
            "compare leaves the gradient norm out",
            "compare.py",
            '({"epoch": s.epoch, **s.numbers} for s',
            '({"epoch": s.epoch, "loss": s.numbers["loss"]} for s',
        ),
        (
            "compare leaves the weights out",
            "compare.py",
            "    if weights_a != weights_b:",
            "    if False:",
        ),
        (
            "an edited log is believed",
            "compare.py",
            "        if completed and hashlib",
            "        if False and hashlib",
        ),
    ),
    *_group(
        "surroundings",
        (
            "modules of the caller's shell are imported",
            "shell.py",
            "_SEARCHED: str(source) if ours else None",
            "_SEARCHED: environ.get(_SEARCHED)",
        ),
        (
            "one checkout's code on another's files",
            "entry.py",
            "return None if (root / inside).samefile(PACKAGE) else root",
            "return None",
        ),
        (
            "a hook's repository is asked",
            "git.py",
            ' if not name.startswith("GIT_")}',
            "}",
        ),
        (
            "repositories inside are not read",
            "git.py",
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
            "loading.py",
            "    signal.setitimer(signal.ITIMER_REAL, seconds)\n    try",
            "    try",
        ),
        (
            "a closed terminal kills",
            "interrupt.py",
            '"SIGINT", "SIGHUP",',
            '"SIGINT",',
        ),
        (
            "moments are loaded where they do not fit",
            "checkpoint.py",
            "if misfit := next(_misfits(state, model, optimizer), None):",
            "if misfit := None:",
        ),
    ),
]
