"""Progress of a task, for those who watch: now and then, and nothing from tasks that are over at once."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from common import pb

EVERY_S = 0.5


class Telling:
    """Use as a context; call it with phase and fraction from the task's thread.

    The first message goes out after EVERY_S even when the task is silent then, in one long call of its learner.
    """

    def __init__(self, key: pb.TaskKey, tell: Callable[[pb.AgentEvent], None]) -> None:
        self._key, self._tell = key, tell
        self._phase, self._fraction = "", 0.0
        self._told_at = time.monotonic()
        self._first = threading.Timer(EVERY_S, self._say)
        self._first.daemon = True

    def __enter__(self) -> Self:
        self._first.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._first.cancel()

    def __call__(self, phase: str, fraction: float) -> None:
        self._phase, self._fraction = phase, fraction
        if time.monotonic() - self._told_at >= EVERY_S:
            self._say()

    def _say(self) -> None:
        self._told_at = time.monotonic()
        progress = pb.Progress(key=self._key, phase=self._phase, fraction=self._fraction)
        self._tell(pb.AgentEvent(progress=progress))
