"""Lock a project with poetry for a Python that need not be here: run inside poetry's environment.

python tools/poetry_lock.py PROJECT PYTHON

The poetry command insists on an interpreter with the project's Python, although a lock only needs
its version. `original.toml` next to the project is the file that the lock must belong to.
"""

import sys
import tomllib
from pathlib import Path

from cleo.io.null_io import NullIO
from poetry.factory import Factory
from poetry.installation.installer import Installer
from poetry.packages.locker import Locker
from poetry.utils.env import MockEnv


def main(project: Path, python: str) -> None:
    """Write `poetry.lock`."""
    poetry = Factory().create_poetry(project)
    major, minor = map(int, python.split("."))
    env = MockEnv(version_info=(major, minor, 0, "final", 0))
    installer = Installer(NullIO(), env, poetry.package, poetry.locker, poetry.pool, poetry.config)
    installer.lock(update=True)
    code = installer.run()
    if code:
        sys.exit(code)
    lock = project / "poetry.lock"
    text = lock.read_text(encoding="utf-8")
    given = tomllib.loads((project / "original.toml").read_text(encoding="utf-8"))
    locked_for = tomllib.loads(text)["metadata"]["content-hash"]
    # The content hash is of pyproject.toml without the stand-in indexes.
    wanted = Locker(lock, given)._get_content_hash()
    lock.write_text(text.replace(locked_for, wanted), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
