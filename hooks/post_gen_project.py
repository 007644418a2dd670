"""Put the files that the answers brought in place; print the next commands."""

import json
import shutil
from pathlib import Path


def apply_overlays(project: Path, answers: dict) -> None:
    """Copy `_overlays/<option>/<answer>/` onto the project, then drop `_overlays/`.

    An overlay's file that rendered to nothing does not belong to these answers: it is left out.
    """
    overlays = project / "_overlays"
    for option in sorted(overlays.iterdir()):
        chosen = option / str(answers[option.name])
        for source in sorted(path for path in chosen.rglob("*") if path.is_file()):
            if source.read_bytes().strip():
                target = project / source.relative_to(chosen)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    shutil.rmtree(overlays)


def main() -> None:
    """Arrange the fresh project in the working directory."""
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    apply_overlays(Path.cwd(), answers)
    steps = json.loads(r"""{{ next_steps(cookiecutter) | tojson }}""")
    print("\nNext:", *steps, sep="\n  ")


if __name__ == "__main__":
    main()
