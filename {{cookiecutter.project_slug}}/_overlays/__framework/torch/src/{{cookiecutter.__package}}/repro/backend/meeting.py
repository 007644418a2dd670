"""Where the processes that torchrun started leave notes for each other, before they are connected
and after one of them has failed."""

import datetime
import os

from torch.distributed import TCPStore


def store() -> TCPStore:
    """torchrun's store: numbers and texts by name.

    Raises:
        RuntimeError: it is gone.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    wait = datetime.timedelta(seconds=30)
    return TCPStore(address, port, is_master=False, timeout=wait, wait_for_workers=False)
