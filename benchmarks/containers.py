"""How long images take to build and services to come up, and what they weigh.

python benchmarks/containers.py            (in an engine as `make test-containers` takes it)
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cookiecutter.main import cookiecutter  # noqa: E402

from tools import engine, stand_ins  # noqa: E402  (the template's root is not a package)

STACK = "torch-2.13.0-cpu"
FOLDER = ROOT / "build" / "bench" / "containers"


def main() -> int:
    """Build cold, warm and after a change of code; start the services; print a line each."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    answers = {"project_slug": "weighed", "dependency_manager": "pip", "stack": STACK}
    answers["python_version"] = ".".join(map(str, sys.version_info[:2]))
    project = Path(
        cookiecutter(str(ROOT), no_input=True, output_dir=str(FOLDER), extra_context=answers)
    )
    text = (project / ".env.example").read_text().replace("JUPYTER_TOKEN=", "JUPYTER_TOKEN=bench")
    (project / ".env").write_text(text)
    (project / "compose.override.yaml").write_text(stand_ins.OVERRIDE)
    try:
        with stand_ins.ready(ROOT / "build" / "engine", STACK) as environ:
            measure(project, environ)
    except engine.EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(project: Path, environ: dict[str, str]) -> None:
    """Each figure once: what is slow here is a download or a copy of gigabytes."""
    build = ["make", "docker", "ACCELERATOR=cpu", "DOCKER_ARGS=--network=host"]
    cold = seconds(build, project, environ)
    warm = seconds(build, project, environ)
    with (project / "src/weighed/model.py").open("a") as file:
        file.write("# a change of code\n")
    code = seconds(build, project, environ)
    print(f"the image: cold {cold:.0f} s, nothing changed {warm:.1f} s, code changed {code:.1f} s")
    print(f"code changed / cold: {code / cold:.2f}")
    services = ["make", "up", "ACCELERATOR=cpu", "CONFIG=configs/smoke.yaml"]
    print(f"the other two images and their start: {seconds(services, project, environ):.0f} s")
    for image in ("weighed:cpu", "weighed-jupyter:cpu", "weighed-mlflow"):
        size = json.loads(output(["docker", "inspect", image], environ))[0]["Size"]
        print(f"{image}: {size / 1e9:.2f} GB")
    stats = ["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"]
    for line in re.findall(r"(\S+) ([\d.]+\w+) /", output(stats, environ)):
        print("memory:", *line)
    down = ["make", "down", "ACCELERATOR=cpu"]
    seconds(down, project, environ)
    print(f"up again, images built: {seconds(services, project, environ):.0f} s")
    seconds(down, project, environ)


def seconds(command: list[str], project: Path, environ: dict[str, str]) -> float:
    """The time that a command takes; it must succeed."""
    begun = time.perf_counter()
    full = [*command, f"PYTHON={sys.executable}"]
    subprocess.run(full, cwd=project, env=environ, check=True, capture_output=True)
    return time.perf_counter() - begun


def output(command: list[str], environ: dict[str, str]) -> str:
    """What a command prints."""
    return subprocess.check_output(command, env=environ, text=True)


if __name__ == "__main__":
    sys.exit(main())
