"""Fetch: payloads go out, by digest, from any offset; only what was offered to that agent.

The parts are made in a thread, several a hop and one hop ahead of a stream that is read quickly, and all downloads
together hold no more bytes than their budget. What is made ahead takes at most half of it; a slow reader holds the one
part that it is being sent, so those that stop reading do not hold up the others.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Protocol

import grpc

from common import pb
from server.budget import Budget
from server.calls import Context, ended, failed, in_pool, owner_of, refuse
from server.fleet import Fleet

PARTS_A_HOP = 4
PATIENCE_S = 0.25  # nothing is made ahead for one who takes longer to read a part


class Blobs(Protocol):
    def has(self, sha256: bytes) -> bool: ...
    def parts(self, sha256: bytes, offset: int, part_bytes: int) -> Iterator[bytes]: ...


class Downloads:
    def __init__(self, blobs: Blobs, fleet: Fleet, pool: Executor, *, budget_bytes: int, part_bytes: int) -> None:
        self._blobs = blobs
        self._fleet = fleet
        self._pool = pool
        self._budget = Budget(budget_bytes)
        self._part_bytes = part_bytes
        self.stall_s = 60.0
        self.agreed: dict[str, int] = {}  # host -> part size, from its hello

    async def fetch(self, message: bytes, context: Context) -> None:
        try:
            request = pb.FetchRequest.FromString(message)
            host = await owner_of(context, request.agent)
            await self._check_offered(request, context)
            await self._send(request, self.agreed.get(host, self._part_bytes), context)
        except TimeoutError:
            text = f"this payload was not read any further for {self.stall_s:g} s; fetch again from where you are"
            await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, text)
        except Exception as error:  # noqa: BLE001 - the outermost loop: one broken download must not touch the others
            await failed(context, "fetch", error)

    async def _check_offered(self, request: pb.FetchRequest, context: Context) -> None:
        if not self._fleet.may_fetch(request.agent, request.sha256):
            text = f"no open offer to agent {request.agent} names payload {request.sha256.hex()[:16]}…; drop the task"
            await refuse(context, grpc.StatusCode.NOT_FOUND, text)
        if not await in_pool(self._pool, self._blobs.has, request.sha256):
            text = f"payload {request.sha256.hex()[:16]}… is not on this server any more; drop the task"
            await refuse(context, grpc.StatusCode.NOT_FOUND, text)

    async def _send(self, request: pb.FetchRequest, part_bytes: int, context: Context) -> None:
        parts = await in_pool(self._pool, self._blobs.parts, request.sha256, request.offset, part_bytes)
        held: list[int] = []  # bytes of budget, one entry a part that is made or being made
        ahead: asyncio.Task[list[bytes]] | None = None
        is_quick = False
        loop = asyncio.get_running_loop()
        try:
            while batch := await (ahead or self._next(parts, part_bytes, held)):
                ahead = self._go_ahead(parts, part_bytes, held) if is_quick else None
                for part in batch:
                    began = loop.time()
                    async with asyncio.timeout(self.stall_s):
                        await context.write(part)
                    is_quick = loop.time() - began < PATIENCE_S
                    self._budget.give(held.pop(0))
        finally:
            try:
                if ahead is not None:
                    await ended(ahead)
            finally:  # though the call is cancelled a second time
                self._budget.give(sum(held))

    async def _next(self, parts: Iterator[bytes], part_bytes: int, held: list[int]) -> list[bytes]:
        held.append(await self._budget.take(part_bytes))
        return await in_pool(self._pool, _some, parts, 1)

    def _go_ahead(self, parts: Iterator[bytes], part_bytes: int, held: list[int]) -> "asyncio.Task[list[bytes]] | None":
        """A hop of parts while those before are sent, if half of the budget stays free for others."""
        n_bytes = PARTS_A_HOP * part_bytes
        if self._budget.free - n_bytes < self._budget.total // 2 or not self._budget.try_take(n_bytes):
            return None
        held.extend([part_bytes] * PARTS_A_HOP)
        return asyncio.create_task(in_pool(self._pool, _some, parts, PARTS_A_HOP))


def _some(parts: Iterator[bytes], n: int) -> list[bytes]:
    return list(islice(parts, n))
