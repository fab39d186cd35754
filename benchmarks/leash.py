"""`python -m benchmarks.leash PARENT COMMAND...`: becomes `python COMMAND`, which ends when its parent does.

On Linux (prctl(2), PR_SET_PDEATHSIG); elsewhere it only becomes the command.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it was gone before we were tied to it
            return
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
