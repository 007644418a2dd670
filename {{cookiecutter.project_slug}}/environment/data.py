"""Data sets under DVC: fetch what the `.dvc` files in git pin, or run another command of DVC.

python environment/data.py [COMMAND …]     (such as `add data/table.csv`, `push`; default: pull)

DVC has an environment of its own. The remote is DVC_REMOTE, or else the one in `.dvc/config`.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from children import started
from failure import SetupError, explain, one_line, without_secrets
from locked import ROOT

DVC = ROOT / ".envs" / "tool-dvc" / "bin" / "dvc"
REMOTE = "from-env"
TAKE_A_REMOTE = ("pull", "push", "fetch")
REASONS = (
    (
        r"unsaved files without confirmation",
        'changed here, and kept: make data ARGS="add FILE" takes it as the new version, '
        'ARGS="pull --force" drops it',
    ),
    (r"missing-files", "the remote lacks the version that git pins; whoever has it must push it"),
    (r"Could not connect|[Cc]onnection|timed out", "the remote cannot be reached"),
    (r"NoSuchBucket", "the remote's bucket does not exist"),
    (
        r"Unable to locate credentials|AccessDenied|Forbidden|InvalidAccessKey|SignatureDoesNot",
        "the remote refuses these keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY in .env)",
    ),
)


def main() -> int:
    """Run one command of DVC; without a command, fetch the data if any is under DVC."""
    command = sys.argv[1:] or ["pull"]
    has_dvc = (ROOT / ".dvc").is_dir()
    if not has_dvc and command[0] in TAKE_A_REMOTE:
        print('note: no data is under DVC here; make data ARGS="add data/FILE" puts it there')
        return 0
    if not has_dvc:
        repository = _repository()
    install = [sys.executable, Path(__file__).with_name("tool.py"), "dvc"]
    with started(install) as installing:
        installing.wait()
    if installing.returncode:
        return installing.returncode  # it has said why
    with tempfile.TemporaryDirectory(prefix="dvc-") as settings:
        remote = _write_settings(Path(settings))
        # An empty key of .env would hide the one in ~/.aws.
        is_unset = {name for name in os.environ if name.startswith("AWS_") and not os.environ[name]}
        environ = {name: value for name, value in os.environ.items() if name not in is_unset}
        environ |= {"DVC_SYSTEM_CONFIG_DIR": settings, "DVC_NO_ANALYTICS": "1"}
        if not has_dvc:
            subdir = ["--subdir"] if repository != ROOT else []
            _run(["init", "--quiet", *subdir], environ)
        if remote and command[0] in TAKE_A_REMOTE:
            command += ["--remote", REMOTE]
        _run(command, environ)
    return 0


def _repository() -> Path:
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--show-toplevel"], capture_output=True, text=True
    )
    if done.returncode:
        raise SetupError("DVC needs a git repository, and this is none; git init comes first")
    return Path(done.stdout.rstrip("\n")).resolve()


def _write_settings(folder: Path) -> str:
    """Write DVC's settings, with the remote that DVC_REMOTE names; it is returned."""
    remote = os.environ.get("DVC_REMOTE", "").strip()
    if "\n" in remote:
        raise SetupError("DVC_REMOTE has more than one line; it names a folder or an address")
    if remote and "://" not in remote:
        remote = str(ROOT / Path(remote).expanduser())
    lines = ["[core]", "analytics = false", "check_update = false"]
    if remote:
        lines += [f"remote = {REMOTE}", f"['remote \"{REMOTE}\"']", f"url = {_quoted(remote)}"]
    (folder / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return remote


def _quoted(text: str) -> str:
    # The format of DVC's settings has no escape for a quote within the same quotes.
    for quote in ("'", '"'):
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise SetupError(f"DVC_REMOTE has both kinds of quotes: {text}")


def _run(command: list[str], environ: dict[str, str]) -> None:
    print(without_secrets(" ".join(["dvc", *command])), flush=True)
    with started(
        [DVC, *command],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        _, said = process.communicate()
    if process.returncode:
        raise SetupError(_reason(said), code=1)
    print(without_secrets(said), end="", file=sys.stderr)


def _reason(log: str) -> str:
    files = [line for line in log.splitlines() if Path(line.strip()).suffix and " " not in line]
    about = ", ".join(os.path.relpath(file, ROOT) for file in files[:3])
    for pattern, reason in REASONS:
        if re.search(pattern, log):
            return f"{about}: {reason}" if about else reason
    return explain(log)


if __name__ == "__main__":
    sys.exit(one_line(main))
