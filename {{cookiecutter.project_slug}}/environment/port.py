"""Check that a port is free.

python environment/port.py VARIABLE PORT                    (`make mlflow`, before it starts)
"""

import socket
import sys

from failure import SetupError, one_line


def check_port(variable: str, port: str, *, ours: bool = False) -> None:
    """Raise a `SetupError` unless `port` is free on loopback, or already `ours`."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SetupError(f"{variable} must be a port, 1 to 65535, got {port!r}")
    if ours:
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", int(port))) == 0:
            raise SetupError(f"port {port} is in use; set another {variable} in .env")


def main() -> int:
    """Report what is wrong with the port, if anything."""
    check_port(*sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main))
