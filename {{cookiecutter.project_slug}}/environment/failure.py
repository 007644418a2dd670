"""How the commands in this folder fail: with one line and an exit code.

The few causes that users run into are recognized by the managers' messages.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

from children import started


class SetupError(Exception):
    """An error that says in one line what went wrong and what to do; `code` is the exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def one_line(main: Callable[[], int], kept: str = "what was there before") -> int:
    """Run `main` and return its exit code; any failure is printed as one line. `kept` names what
    Ctrl-C and SIGTERM leave unchanged."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return main()
    except SetupError as error:
        print(f"error: {without_secrets(str(error))}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename or 'writing'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"error: stopped; {kept} is as it was", file=sys.stderr)
        return 130


_USER = re.compile(r"(?<=://)[^/?#\s@'\"]+@")
_NAMES = "token|key|secret|password|signature|sig|auth"
_PARAMETER = re.compile(rf"(?i)([?&;][\w.-]*(?:{_NAMES})=)[^&#\s'\"]+")


def without_secrets(text: str) -> str:
    """`https://user:password@host/p?token=x` as `https://host/p?token=***`, anywhere in a text."""
    return _PARAMETER.sub(r"\1***", _USER.sub("", text))


def require(command: str, minimum: str, where: str, *, versions: bool = True) -> None:
    """Raise a `SetupError` unless `command` is installed in version `minimum` or newer."""
    if not shutil.which(command):
        raise SetupError(f"{command} not found: install it ({where})")
    if not versions:
        return
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    found = re.search(r"\d+(?:\.\d+)+", done.stdout)
    if not found:
        raise SetupError(f"{command} --version names no version: install it again ({where})")
    if _numbers(found[0]) < _numbers(minimum):
        raise SetupError(
            f"{command} is {found[0]}; this project needs {minimum} or newer ({where})"
        )


def run_quietly(command: list[object]) -> None:
    """Run a command; raise a one-line `SetupError` if it fails."""
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        _, errors = process.communicate()
    if process.returncode:
        raise SetupError(explain(errors), code=1)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


REASONS = (
    (r"No space left on device|ENOSPC|os error 28", "the disk is full"),
    (
        r"DO NOT MATCH THE HASHES|[Hh]ash mismatch|hashes .*mismatch|Invalid hashes",
        "a file is not the one that the lock names (sha256)",
    ),
    (
        r"(?i)invalid peer certificate|CERTIFICATE_VERIFY_FAILED|UnknownIssuer|certificate verify",
        "an index's certificate is not trusted; where your company has its own, name its file in "
        "SSL_CERT_FILE",
    ),
    (
        r"dns error|Name or service not known|Temporary failure in name resolution|"
        r"[Cc]onnection refused|Failed to establish a new connection|Network is unreachable|"
        r"Could not connect|ConnectError|All attempts to connect|error sending request|timed out",
        "an index cannot be reached (PACKAGE_INDEX, PYTORCH_INDEX_CPU, PYTORCH_INDEX_CUDA in .env "
        "name mirrors)",
    ),
    (
        r"lockfile .*needs to be updated|not up-to-date|changed significantly since poetry.lock",
        "the lock is older than pyproject.toml; run make lock",
    ),
    (r"Bad CRC|BadZipFile|Failed to extract|not a zip", "a file is damaged"),
    (
        r"No matching distribution|was not found in the|not found in the (package )?registry|"
        r"no matching wheel|"
        r"because there (is|are) no version|Unable to find installation candidates",
        "a file that the lock names is not there",
    ),
)
_SUBJECTS = (
    r"^\s+(\S+==\S+) from ",  # pip, below its line about hashes
    r"for requirement (\S+)",
    r"Because ([a-z0-9._-]+(?:==\S+)?) was not found",
    r"No matching distribution found for ([^\s(]+)",
    r"Could not find a version that satisfies the requirement ([^\s(]+)",
    r"`([a-z0-9._-]+==[^`]+)`",  # uv
    r"(?:installation candidates for|archive) ([a-z0-9._-]+ ?\(?[\w.+-]+\)?)",  # poetry
    r"(https?://[^\s'\")`>]+)",
)


def explain(log: str, where: str = "") -> str:
    """Explain a manager's error output in one line; `where` says where to find the rest."""
    log = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", log)  # terminal escape codes
    for pattern, reason in REASONS:
        if re.search(pattern, log):
            return f"{reason}{_subject(log)}{where}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if re.match(r"(?i)error", line)), "")
    last = last or (lines[-1] if lines else "it said nothing")
    return f"{re.sub('(?i)^error: *', '', last)[:300]}{where}"


def _subject(log: str) -> str:
    for pattern in _SUBJECTS:
        if match := re.search(pattern, log, re.MULTILINE):
            return f": {match[1].rstrip(',.:;')}"
    return ""
