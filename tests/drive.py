"""Runs many command lines of a generated package, each in a fork of one warm interpreter.

python drive.py PACKAGE < cases > answers    (a JSON line a case: its arguments and environment)
"""

import importlib
import json
import os
import sys
import tempfile
import traceback


def main(package: str) -> None:
    """Answer each case with its exit code and what it wrote to stderr."""
    before = dict(os.environ)
    import torch  # noqa: F401  (what every fork has already)

    os.environ.clear()  # what libraries set would make a fork start itself again
    os.environ.update(before)
    program = importlib.import_module(f"{package}.__main__")
    for line in sys.stdin:
        case = json.loads(line)
        with tempfile.TemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                code = 70
                try:
                    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                    os.dup2(errors.fileno(), 2)
                    os.environ.update(case.get("env", {}))
                    os.chdir(case["cwd"])
                    sys.argv = ["probe", *case["arguments"]]
                    code = program.main(case["arguments"])
                except SystemExit as stop:
                    code = stop.code
                except BaseException:
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 71)
            _, status = os.waitpid(child, 0)
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "stderr": text}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
