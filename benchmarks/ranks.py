"""A step in pieces against PyTorch's DistributedDataParallel, with equal ranks and micro-batches.

Runs inside the demo's environment (`make demo` makes it): python benchmarks/ranks.py

The loops alternate within the same processes, ten steps each; the figures are medians of the ratios
of neighbours. More ranks than processors make steps slower, for both.
"""

import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "build" / "demo" / "demo-project"
CASES = ((2, 2), (2, 4), (4, 4))
"""Ranks and pieces."""
ROUNDS, STEPS, SAMPLES = 15, 10, 64


def main() -> None:
    """Start each case under torchrun in the demo's environment."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")
    print(f"{'model':<8} ranks pieces  invariant / DDP   ordered / DDP")
    for ranks, pieces in CASES:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [python, *torchrun, __file__, "inside", str(pieces)]
        environ = {"PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin"}
        subprocess.run(command, cwd=PROJECT, env=environ, check=True)


def inside(pieces: int) -> None:
    """Measure one case, as one of its ranks."""
    import torch
    import torch.nn.functional as F
    from demo_project.repro.backend.gradients import Pieces
    from demo_project.repro.backend.ranks import connect
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    ranks = connect()

    def mlp() -> nn.Module:
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(768, 768), nn.ReLU()),
            *(nn.Linear(768, 256), nn.ReLU(), nn.Linear(256, 10)),
        )

    def cnn() -> nn.Module:
        layers: list[nn.Module] = []
        for width_in, width in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(width_in, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def loops(build):
        torch.manual_seed(0)
        share = SAMPLES // pieces * (pieces // ranks.size)
        images, labels = torch.randn(share, 3, 16, 16), torch.randint(10, (share,))

        def ddp_loop():
            model = DistributedDataParallel(build())
            optimizer = torch.optim.SGD(model.parameters(), 0.01, fused=True)
            micro = pieces // ranks.size
            parts = list(zip(images.chunk(micro), labels.chunk(micro), strict=True))

            def step() -> None:
                optimizer.zero_grad(set_to_none=True)
                for number, (x, y) in enumerate(parts):
                    last = number == micro - 1
                    with nullcontext() if last else model.no_sync():
                        (F.cross_entropy(model(x), y) / micro).backward()
                optimizer.step()

            return step

        def our_loop(num_pieces: int):
            model = build()
            optimizer = torch.optim.SGD(model.parameters(), 0.01, fused=True)
            gradients = Pieces(num_pieces, 1, ranks)
            gradients.place(model)

            def step() -> None:
                optimizer.zero_grad(set_to_none=True)
                for x, y in gradients.cut([[images, labels]], lambda piece: None):
                    gradients.backward(F.cross_entropy(model(x), y))
                optimizer.step()

            return step

        return ddp_loop(), our_loop(pieces), our_loop(ranks.size)

    for name, build in (("MLP", mlp), ("CNN", cnn)):
        times: list[list[float]] = [[], [], []]
        steps = loops(build)
        for turn in range(ROUNDS + 1):
            for number in sorted(range(3), key=lambda each: (each + turn) % 3):  # none always first
                ranks.gather(None)  # together
                started = time.perf_counter()
                for _ in range(STEPS):
                    steps[number]()
                times[number].append(time.perf_counter() - started)
        ratios = [
            statistics.median(ours / ddp for ours, ddp in zip(each[1:], times[0][1:], strict=True))
            for each in times[1:]
        ]
        if ranks.is_first:
            print(f"{name:<8} {ranks.size:>5} {pieces:>6}  {ratios[0]:>15.2f}  {ratios[1]:>14.2f}")
    from demo_project.repro.launched import leave

    leave(0)


if __name__ == "__main__":
    inside(int(sys.argv[2])) if sys.argv[1:2] == ["inside"] else main()
