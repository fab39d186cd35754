"""Join: one stream per host, open as long as the host is there. It carries small messages and costs one queue.

The handler waits on its queue and ends the stream itself: cancelling a handler's task leaves the agent's stream open.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from datetime import UTC, datetime

import grpc
from google.protobuf.message import DecodeError

from common import pb
from common.errors import RemoteFault
from server import claims
from server.calls import EOF, Context, failed, identified, in_pool, refuse
from server.downloads import Downloads
from server.fleet import Fleet
from server.identity import Caller, check_agent, check_host

log = logging.getLogger(__name__)

PROTOCOL = 1
HELLO_S = 30.0  # a host that opens a stream and says nothing is let go
BACKLOG = 4096  # messages that a host may leave unread before its stream is ended
AGENTS = 1024  # of one host
SMALLEST_PART = 4096


class Outbox:
    """A host's `Line`: what is pushed from any thread goes into the stream's queue."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: end the stream
        self._ended = False

    def push(self, event: pb.ServerEvent) -> None:
        self._call(self._put, event.SerializeToString())

    def end(self, event: pb.ServerEvent) -> None:
        self._call(self._close, event.SerializeToString())

    def close(self) -> None:
        self._call(self._close, None)

    def _call(self, put: Callable[[bytes | None], None], data: bytes | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: the server is down and so is the stream
            self._loop.call_soon_threadsafe(put, data)

    def _put(self, data: bytes | None) -> None:
        if self._ended:
            return
        if self.queue.qsize() >= BACKLOG:
            log.warning("backlog_full messages=%d", self.queue.qsize())
            self._close(None)
            return
        self.queue.put_nowait(data)

    def _close(self, data: bytes | None) -> None:
        if self._ended:
            return
        self._ended = True
        if data is not None:
            self.queue.put_nowait(data)
        self.queue.put_nowait(None)


class Streams:
    def __init__(
        self,
        fleet: Fleet,
        downloads: Downloads,
        pool: Executor,
        *,
        remember: Callable[[pb.Hello], None],
        welcome: pb.Welcome,
    ) -> None:
        self._fleet = fleet
        self._downloads = downloads
        self._pool = pool
        self._remember = remember
        self._welcome = welcome

    async def join(self, _requests: object, context: Context) -> None:
        try:
            who = await identified(context)
            hello = await self._hello(context)
            try:
                check_hello(who, hello)
            except RemoteFault as fault:
                await turn_away(context, grpc.StatusCode.PERMISSION_DENIED, str(fault))
            await self._stay(who, hello, context)
        except Exception as error:  # noqa: BLE001 - the outermost loop: one broken stream must not touch the others
            await failed(context, "join", error)

    async def _hello(self, context: Context) -> pb.Hello:
        try:
            async with asyncio.timeout(HELLO_S):
                first = await context.read()
        except TimeoutError:
            await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"no hello came within {HELLO_S:g} s")
        event = pb.AgentEvent() if first is EOF else parsed(first)
        if not event.HasField("hello"):
            raise RemoteFault(f"join: expected a hello first, got {event.WhichOneof('kind')}")
        return event.hello

    async def _stay(self, who: Caller, hello: pb.Hello, context: Context) -> None:
        await in_pool(self._pool, self._remember, hello)
        outbox = Outbox()
        outbox.push(pb.ServerEvent(welcome=self._agree(hello)))
        try:
            self._fleet.join(hello, outbox)
        except RemoteFault as fault:
            await turn_away(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
        reader = asyncio.create_task(self._listen(hello.host, context, outbox))
        expiry = _at_expiry(who, outbox)
        try:
            while (data := await outbox.queue.get()) is not None:
                await context.write(data)
        finally:
            self._fleet.left(hello.host, outbox)
            if expiry is not None:
                expiry.cancel()
            reader.cancel()
            await asyncio.wait({reader})
        if not reader.cancelled() and (error := reader.exception()) is not None:
            raise error

    def _agree(self, hello: pb.Hello) -> pb.Welcome:
        welcome = pb.Welcome()
        welcome.CopyFrom(self._welcome)
        if hello.part_bytes:
            welcome.part_bytes = max(SMALLEST_PART, min(hello.part_bytes, welcome.part_bytes))
        self._downloads.agreed[hello.host] = welcome.part_bytes
        return welcome

    async def _listen(self, host: str, context: Context, outbox: Outbox) -> None:
        """Until the host closes its side, says that it leaves, or breaks the contract."""
        try:
            while (message := await context.read()) is not EOF:
                event = parsed(message)
                if event.HasField("leaving"):
                    log.info("host_leaving host=%s reason=%s", host, event.leaving.reason)
                    return
                self._fleet.heard(host, event)
        finally:
            outbox.close()


def parsed(message: bytes) -> pb.AgentEvent:
    try:
        return pb.AgentEvent.FromString(message)
    except DecodeError as error:
        raise RemoteFault(f"join: expected a message AgentEvent, got {len(message)} bytes that are none") from error


def check_hello(who: Caller, hello: pb.Hello) -> None:
    """That the host may join as it says it is.

    Raises:
        RemoteFault: naming what to change.
    """
    check_host(who, hello.host)
    where = f"host {hello.host}"
    if hello.protocol != PROTOCOL:
        raise RemoteFault(
            f"{where}: expected protocol {PROTOCOL}, got {hello.protocol} (edgefed {hello.version or 'unknown'} there);"
            " install the same version on both sides"
        )
    if not 0 < len(hello.instance) <= 128:
        raise RemoteFault(f"{where}: expected an instance of 1 to 128 characters, got {len(hello.instance)}")
    if not 0 < len(hello.agents) <= AGENTS:
        raise RemoteFault(f"{where}: expected 1 to {AGENTS} agents, got {len(hello.agents)}")
    claims.check(hello, where)
    seen = set()
    for agent in hello.agents:
        check_agent(hello.host, agent.name)
        if agent.name in seen:
            raise RemoteFault(f"{where}: two agents have the name {agent.name!r}; give each its own")
        seen.add(agent.name)


async def turn_away(context: Context, code: grpc.StatusCode, reason: str) -> None:
    """Tell the host why it cannot join, in the stream and as the status."""
    await context.write(pb.ServerEvent(refused=pb.Refused(reason=reason)).SerializeToString())
    await refuse(context, code, reason)


def _at_expiry(who: Caller, outbox: Outbox) -> asyncio.TimerHandle | None:
    if who.until is None:
        return None
    reason = f"this certificate expired at {who.until.isoformat()}; install a new one and connect again"
    left_s = (who.until - datetime.now(UTC)).total_seconds()
    last = pb.ServerEvent(refused=pb.Refused(reason=reason))
    return asyncio.get_running_loop().call_later(left_s, outbox.end, last)
