"""Progress deadlines: a call that still moves is never ended, one that stands still is."""

import contextlib
import threading
import time
from collections.abc import Iterator

import grpc

from common.errors import LinkLost
from edge_client.link import Call

LOOK_S = 15.0  # how late a shorter deadline may be noticed


class Progress:
    """`tick` with each message; `stop` when no deadline is needed any more."""

    def __init__(self, idle_s: float) -> None:
        self.idle_s = idle_s
        self.ended = threading.Event()
        self.is_expired = False
        self._at = time.monotonic()

    def tick(self) -> None:
        self._at = time.monotonic()

    def stop(self) -> None:
        self.ended.set()

    def left_s(self) -> float:
        return self._at + self.idle_s - time.monotonic()


@contextlib.contextmanager
def watched(call: Call, progress: Progress) -> Iterator[None]:
    """Cancels the call when nothing has moved for `progress.idle_s` within the context.

    Raises:
        LinkLost: it did.
    """
    threading.Thread(target=_watch, args=(call, progress), name="watch", daemon=True).start()
    try:
        yield
    except grpc.RpcError as error:
        if progress.is_expired:
            raise LinkLost(f"nothing has moved for {progress.idle_s:g} s") from error
        raise
    finally:
        progress.stop()


def _watch(call: Call, progress: Progress) -> None:
    while (left_s := progress.left_s()) > 0:
        if progress.ended.wait(min(left_s, LOOK_S)):
            return
    progress.is_expired = True
    call.cancel()
