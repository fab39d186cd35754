"""Submit: replies come in. Bytes go from the stream to the intake's threads; nothing else happens on the loop.

Memory does not grow with the number of agents: a few uploads at a time read ahead, and all together hold no more
bytes than their budget. An upload whose next part is long in coming gives its place and its budget to others and goes
on one part at a time, so slow links neither block fast ones nor are slowed by them. Only silence ends an upload, never
its length.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from common import pb
from common.errors import RemoteFault
from common.task_key import Key
from server.budget import Budget
from server.calls import EOF, Context, ended, failed, in_pool, owner_of, refuse

log = logging.getLogger(__name__)

READ_AHEAD = 4  # parts that one upload may hold beside those being written
PATIENCE_S = 0.25  # an upload whose next part takes longer gives its place away
WAITING = 1024  # uploads that may wait for a place; more are told to come again


class Upload(Protocol):
    @property
    def offsets(self) -> Sequence[int]: ...
    def feed(self, part: bytes) -> None: ...
    def close(self) -> pb.Receipt: ...
    def abandon(self) -> None: ...


class Intake(Protocol):
    def open(self, header: pb.RecordHeader) -> "pb.Receipt | Upload": ...


@dataclass
class _Inflow:
    """Parts that have come and are not yet written."""

    parts: list[bytes] = field(default_factory=list)
    ended: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self) -> list[bytes]:
        """All that has come, at least one part; empty at the end."""
        while not self.parts and not self.ended:
            self.came.clear()
            await self.came.wait()
        parts, self.parts = self.parts, []
        self.room.set()
        return parts


@dataclass
class _Current:
    """An upload that is under way, so that a newer one of the same reply can end it."""

    task: "asyncio.Task[None]"
    replaced: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Uploads:
    def __init__(self, intake: Intake, pool: Executor, *, places: int, budget_bytes: int, part_bytes: int) -> None:
        self._intake = intake
        self._pool = pool
        self._places = Budget(places)
        self._budget = Budget(budget_bytes)
        self._part_bytes = part_bytes
        self._waiting = 0
        self._current: dict[Key, _Current] = {}
        self.stall_s = 60.0

    async def submit(self, _requests: object, context: Context) -> None:
        try:
            header = await self._header(context)
            await owner_of(context, header.key.agent)
            await self._receive(header, context)
        except TimeoutError:
            text = f"no byte came for {self.stall_s:g} s; what came before is kept, submit again to go on from there"
            await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, text)
        except Exception as error:  # noqa: BLE001 - the outermost loop: one broken upload must not touch the others
            await failed(context, "submit", error)

    async def _header(self, context: Context) -> pb.RecordHeader:
        async with asyncio.timeout(self.stall_s):
            first = await context.read()
        part = pb.Part()
        if first is not EOF:
            part.ParseFromString(first)
        if not part.HasField("header"):
            raise RemoteFault(f"submit: expected the header of a reply first, got {part.WhichOneof('kind')}")
        return part.header

    async def _receive(self, header: pb.RecordHeader, context: Context) -> None:
        key = Key.of(header.key)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        while (older := self._current.get(key)) is not None:  # its stream may be half-open: the agent knows best
            older.replaced = True
            older.task.cancel()
            await older.over.wait()
        mine = self._current[key] = _Current(task)
        try:
            await self._with_place(header, context)
        except asyncio.CancelledError:
            if not mine.replaced:
                raise
            task.uncancel()
            await refuse(context, grpc.StatusCode.ABORTED, f"{key}: a newer upload of this reply has taken over")
        finally:
            del self._current[key]
            mine.over.set()

    async def _with_place(self, header: pb.RecordHeader, context: Context) -> None:
        if self._waiting >= WAITING:
            text = f"{self._waiting} uploads are waiting for their turn; try again in a moment"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text, retry_after_s=10)
        place = _Place(self._places)
        self._waiting += 1
        try:
            await place.take()
        finally:
            self._waiting -= 1
        try:
            await self._spool(header, context, place)
        finally:
            place.leave()

    async def _spool(self, header: pb.RecordHeader, context: Context, place: "_Place") -> None:
        opened = await self._open(header)
        if isinstance(opened, pb.Receipt):
            await context.write(pb.SubmitEvent(receipt=opened).SerializeToString())
            return
        upload = opened
        closing = False
        try:
            await context.write(pb.SubmitEvent(resume=pb.Resume(offsets=upload.offsets)).SerializeToString())
            try:
                await self._pump(context, upload, place)
            except RemoteFault as fault:  # the receipt says the same: the same bytes would be refused again
                log.warning("submit_refused reason=%s", fault)
            closing = True
            receipt = await in_pool(self._pool, upload.close)
        finally:
            if not closing:
                await in_pool(self._pool, upload.abandon)
        await context.write(pb.SubmitEvent(receipt=receipt).SerializeToString())

    async def _pump(self, context: Context, upload: Upload, place: "_Place") -> None:
        """Feed the upload while reading ahead; several parts a hop, as many as came meanwhile."""
        inflow = _Inflow()
        reader = asyncio.create_task(self._read_ahead(context, inflow, place))
        held = 0
        try:
            while parts := await inflow.take():
                held = sum(map(len, parts))
                await in_pool(self._pool, _feed, upload, parts)
                self._budget.give(held)
                held = 0
            await reader
        finally:
            try:
                await ended(reader)
            finally:  # though the call is cancelled a second time
                self._budget.give(held + sum(map(len, inflow.parts)))

    async def _read_ahead(self, context: Context, inflow: _Inflow, place: "_Place") -> None:
        try:
            while (part := await self._part(context, place)) is not EOF:
                inflow.parts.append(part)
                inflow.came.set()
                place.take_if_free()
                while len(inflow.parts) >= READ_AHEAD:
                    inflow.room.clear()
                    await inflow.room.wait()
        finally:
            inflow.ended = True
            inflow.came.set()

    async def _part(self, context: Context, place: "_Place") -> bytes:
        """The next part, its bytes taken from the budget; while it is long in coming others have budget and place."""
        reserved = await self._budget.take(self._part_bytes)
        kept = 0

        def let_go() -> None:
            nonlocal reserved
            place.leave()
            self._budget.give(reserved)
            reserved = 0

        hurry = asyncio.get_running_loop().call_later(PATIENCE_S, let_go)
        try:
            async with asyncio.timeout(self.stall_s):
                part = await context.read()
            hurry.cancel()
            if part is not EOF:
                reserved = reserved or await self._budget.take(len(part))
                kept = len(part)
            return part
        finally:
            hurry.cancel()
            self._budget.give(reserved - kept)

    async def _open(self, header: pb.RecordHeader) -> pb.Receipt | Upload:
        opening = asyncio.get_running_loop().run_in_executor(self._pool, self._intake.open, header)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opened = await opening
            if not isinstance(opened, pb.Receipt):
                await in_pool(self._pool, opened.abandon)
            raise


class _Place:
    """One of the few places for uploads that read ahead; given away while the link is slow."""

    def __init__(self, places: Budget) -> None:
        self._places = places
        self._held = 0

    async def take(self) -> None:
        self._held = await self._places.take(1)

    def take_if_free(self) -> None:
        if not self._held and self._places.try_take(1):
            self._held = 1

    def leave(self) -> None:
        self._places.give(self._held)
        self._held = 0


def _feed(upload: Upload, parts: list[bytes]) -> None:
    for part in parts:
        upload.feed(part)
