"""Operations: what an operator asks of a running server, over the Unix socket in the state folder.

Over TCP the same calls need an operator's certificate; a device's is refused, so no device can submit or stop a run.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import grpc

from common import pb
from common.errors import EXIT_STATE, ConfigError, LinkLost, RemoteFault
from common.payloads import Payload
from common.wire import canonical
from server import identity
from server.calls import Context, failed, identified, in_pool, refuse
from server.fleet import Fleet, Present

SERVICE = "edgefed.v1.Operations"
SOCKET = "operations.sock"
SOCKET_PATH_BYTES = 107  # what the kernel allows
PIECE_BYTES = 512 << 10
LOCAL_MESSAGE_BYTES = 1 << 30  # a run file may bring its first weights along; the socket is the operator's own
WATCHERS = 64
ENDING = "the server is stopping; its runs go on when it is started again"

Passed = asyncio.Queue[pb.RunEvent | LinkLost | None]  # to one who watches


class Runs(Protocol):
    """What the server does with runs; every call may block."""

    def submit(self, text: str, name: str, files: Mapping[str, bytes]) -> pb.RunSummary: ...
    def list(self) -> Iterable[pb.RunSummary]: ...
    def detail(self, run: str) -> pb.RunDetail: ...
    def watch(self, run: str, from_round: int) -> "queue.SimpleQueue[pb.RunEvent | None]":
        """Its rounds from then on, those before first; None when it has ended."""
        ...

    def unwatch(self, run: str, events: "queue.SimpleQueue[pb.RunEvent | None]") -> None: ...
    def stop(self, run: str) -> pb.RunSummary: ...
    def export(self, run: str) -> Mapping[str, Payload]: ...


class Operations:
    def __init__(self, runs: Runs, fleet: Fleet) -> None:
        self._runs = runs
        self._fleet = fleet
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="operations")
        self._watched: set[Passed] = set()
        self._is_ending = False

    def methods(self, *, guarded: bool) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """The handlers; guarded, they ask for an operator's certificate first."""
        unary = {
            "SubmitRun": self.submit,
            "ListRuns": self.list,
            "ShowRun": self.show,
            "StopRun": self.stop,
            "ListAgents": self.agents,
        }
        streams = {"WatchRun": self.watch, "ExportRun": self.export}
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {name: grpc.unary_unary_rpc_method_handler(_safely(name, call, guarded)) for name, call in unary.items()}
            | {
                name: grpc.unary_stream_rpc_method_handler(_safely(name, call, guarded))
                for name, call in streams.items()
            },
        )

    async def submit(self, message: bytes, _context: Context) -> bytes:
        request = pb.SubmitRunRequest.FromString(message)
        summary = await in_pool(self._pool, self._runs.submit, request.run_toml, request.name, dict(request.files))
        return summary.SerializeToString()

    async def list(self, _message: bytes, _context: Context) -> bytes:
        return pb.ListRunsReply(runs=await in_pool(self._pool, self._runs.list)).SerializeToString()

    async def show(self, message: bytes, _context: Context) -> bytes:
        detail = await in_pool(self._pool, self._runs.detail, pb.ShowRunRequest.FromString(message).run)
        return detail.SerializeToString()

    async def stop(self, message: bytes, _context: Context) -> bytes:
        summary = await in_pool(self._pool, self._runs.stop, pb.StopRunRequest.FromString(message).run)
        return summary.SerializeToString()

    async def agents(self, _message: bytes, _context: Context) -> bytes:
        return pb.ListAgentsReply(agents=map(summary_of, self._fleet.agents())).SerializeToString()

    async def watch(self, message: bytes, context: Context) -> None:
        request = pb.WatchRunRequest.FromString(message)
        if len(self._watched) >= WATCHERS:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHERS} people watch already; use show")
        events = await in_pool(self._pool, self._runs.watch, request.run, request.from_round)
        passed: Passed = asyncio.Queue()
        self._watched.add(passed)
        if self._is_ending:
            passed.put_nowait(LinkLost(ENDING))
        loop = asyncio.get_running_loop()
        # a thread of its own, for as long as somebody watches: the queue is one that engines can put into
        threading.Thread(target=_pass_on, args=(events, loop, passed), name=f"watch-{request.run}", daemon=True).start()
        try:
            while (event := await passed.get()) is not None:
                if isinstance(event, LinkLost):
                    raise event
                await context.write(event.SerializeToString())
        finally:
            self._watched.discard(passed)
            await in_pool(self._pool, self._runs.unwatch, request.run, events)
            events.put(None)  # ends the thread

    async def export(self, message: bytes, context: Context) -> None:
        payloads = await in_pool(self._pool, self._runs.export, pb.ExportRunRequest.FromString(message).run)
        for name, payload in payloads.items():
            pieces = exported(name, payload)
            while (piece := await in_pool(self._pool, next, pieces, None)) is not None:
                await context.write(piece)

    def end(self) -> None:
        """Tell those who watch that the server stops; nothing would end their streams but a cut."""
        self._is_ending = True
        for passed in self._watched:
            passed.put_nowait(LinkLost(ENDING))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _pass_on(
    events: "queue.SimpleQueue[pb.RunEvent | None]",
    loop: asyncio.AbstractEventLoop,
    passed: Passed,
) -> None:
    event: pb.RunEvent | None = pb.RunEvent()
    with suppress(RuntimeError):  # the loop has closed: nobody watches any more
        while event is not None:
            event = events.get()
            loop.call_soon_threadsafe(passed.put_nowait, event)


def exported(name: str, payload: Payload) -> Iterator[bytes]:
    """One payload as serialised ExportParts of its canonical bytes."""
    for buffer in canonical.encode(payload):
        view = memoryview(buffer)
        for start in range(0, len(view), PIECE_BYTES):
            piece = bytes(view[start : start + PIECE_BYTES])
            yield pb.ExportPart(name=name, data=piece).SerializeToString()
    yield pb.ExportPart(name=name, last=True).SerializeToString()


def summary_of(present: Present) -> pb.AgentSummary:
    return pb.AgentSummary(
        name=present.name,
        host=present.host,
        online=present.online,
        tags=present.description.tags,
        data=present.description.data,
        device=present.hello.device,
        learners=present.hello.learners,
        last_seen_at=present.last_seen_at,
        working_on="" if present.working_on is None else str(present.working_on),
    )


def local_server(operations: Operations, state_dir: Path) -> grpc.aio.Server:
    """The server on the state folder's Unix socket, which only this user can open.

    Raises:
        ConfigError: no socket can be made there.
    """
    path = socket_path(state_dir)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", LOCAL_MESSAGE_BYTES),
            ("grpc.max_send_message_length", LOCAL_MESSAGE_BYTES),
        ]
    )
    server.add_generic_rpc_handlers((operations.methods(guarded=False),))
    before = os.umask(0o177)  # the socket is born with mode 0600
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise ConfigError(f"cannot make the socket {path}: {error}", exit_code=EXIT_STATE) from error
    finally:
        os.umask(before)
    path.chmod(0o600)
    return server


def socket_path(state_dir: Path) -> Path:
    path = state_dir.resolve() / SOCKET
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the path of the socket {path} is too long: expected at most {SOCKET_PATH_BYTES} bytes, got"
            f" {len(os.fsencode(path))}; choose a shorter --state-dir",
            exit_code=EXIT_STATE,
        )
    return path


Unary = Callable[[bytes, Context], Awaitable[bytes]]
Stream = Callable[[bytes, Context], Awaitable[None]]


def _safely(name: str, call: Unary | Stream, guarded: bool) -> Unary:
    async def handler(message: bytes, context: Context) -> bytes:
        try:
            if guarded:
                await _check_operator(context)
            return await call(message, context)  # type: ignore[return-value]  # None ends a stream
        except Exception as error:  # noqa: BLE001 - the outermost loop: one broken call must not touch the others
            await failed(context, name, error)

    return handler


async def _check_operator(context: Context) -> None:
    try:
        identity.check_operator(await identified(context))
    except RemoteFault as fault:
        await refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(fault))
