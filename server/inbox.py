"""What an engine waits on: events of its run, a deadline, or being told to stop."""

import queue
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from server.events import Event, Joined
from server.fleet import Fleet


class Stopped(Exception):
    """The engine was told to stop; `for_good` when an operator ended the run, else it goes on after a restart."""

    def __init__(self, *, for_good: bool) -> None:
        super().__init__("stopped")
        self.for_good = for_good


class Listener(Protocol):
    def heard(self, event: Event) -> None: ...


class Inbox:
    def __init__(self, fleet: Fleet, run: str) -> None:
        self._fleet = fleet
        self._run = run
        self._events = fleet.subscribe(run)
        self._stop = threading.Event()
        self._for_good = False

    def close(self) -> None:
        self._fleet.unsubscribe(self._run)

    def stop(self, *, for_good: bool) -> None:
        """From any thread: the engine's next wait, or the one that it is in, ends with `Stopped`."""
        self._for_good = self._for_good or for_good
        self._stop.set()
        self._events.put(Joined(()))  # wakes it

    def check(self) -> None:
        if self._stop.is_set():
            raise Stopped(for_good=self._for_good)

    def next(self, until: Iterable[float | None], listeners: Iterable[Listener]) -> bool:
        """Wait for one event and pass it on; False when the earliest moment (time.monotonic()) came first."""
        self.check()
        moments = [moment for moment in until if moment is not None]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return False
        self.check()
        for listener in listeners:
            listener.heard(event)
        return True
