"""A number that many streams share: bytes in flight, or uploads at a time."""

import asyncio
from collections import deque


class Budget:
    """First come, first served; for one event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, n: int) -> int:
        """Wait until `n` are free and take them; what was taken, at most the whole budget."""
        n = min(n, self.total)
        if self.try_take(n):
            return n
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((n, turn))
        try:
            await turn
        except asyncio.CancelledError:
            had_its_turn = turn.done() and not turn.cancelled()
            self.give(n if had_its_turn else 0)  # those behind may fit where this one did not
            raise
        return n

    def try_take(self, n: int) -> bool:
        """Take `n` if they are free and nobody waits."""
        if self.contended or n > self.free:
            return False
        self.free -= n
        return True

    def give(self, n: int) -> None:
        self.free += n
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self.free):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)

    @property
    def contended(self) -> bool:
        return any(not turn.done() for _, turn in self._waiting)
