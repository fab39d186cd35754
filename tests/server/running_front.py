"""A real front on a real port of this machine, its loop in a thread, and a device that speaks to it by hand."""

import asyncio
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from common import pb
from common.errors import ConfigError
from common.task_key import Key
from server.events import Replied
from server.fleet import Fleet
from server.front import Front, FrontOptions
from server.listen import Tls, parse_address

SERVICE = "/edgefed.v1.Federation"
WAIT_S = 60.0  # a test that waits this long has failed


class Store:
    """Payloads in memory: a Part is a slice of their bytes."""

    def __init__(self) -> None:
        self.payloads: dict[bytes, bytes] = {}

    def put(self, data: bytes) -> pb.PayloadRef:
        sha256 = hashlib.sha256(data).digest()
        self.payloads[sha256] = data
        return pb.PayloadRef(sha256=sha256, size=len(data))

    def has(self, sha256: bytes) -> bool:
        return sha256 in self.payloads

    def parts(self, sha256: bytes, offset: int, part_bytes: int) -> Iterator[bytes]:
        data = self.payloads[sha256]
        for start in range(offset, len(data), part_bytes):
            yield slice_of(data[start : start + part_bytes], start)


def slice_of(data: bytes, offset: int = 0) -> bytes:
    return pb.Part(slice=pb.ArraySlice(offset=offset, data=data)).SerializeToString()


@dataclass
class Spool:
    """An intake in memory: keeps what came of each reply, and gives a receipt for all of it."""

    notify: Callable[[Any], None] = lambda event: None
    kept: dict[Key, list[bytes]] = field(default_factory=dict)
    receipts: dict[Key, pb.Receipt] = field(default_factory=dict)
    on_feed: Callable[["Spooling", bytes], None] = lambda upload, part: None
    opened: "queue.SimpleQueue[Spooling]" = field(default_factory=queue.SimpleQueue)

    def open(self, header: pb.RecordHeader) -> "pb.Receipt | Spooling":
        key = Key.of(header.key)
        if key in self.receipts:
            return self.receipts[key]
        upload = Spooling(self, key)
        self.opened.put(upload)
        return upload


@dataclass
class Spooling:
    spool: Spool
    key: Key
    fed: int = 0
    abandoned: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None

    @property
    def offsets(self) -> Sequence[int]:
        return [sum(len(pb.Part.FromString(part).slice.data) for part in self.spool.kept.get(self.key, []))]

    def feed(self, part: bytes) -> None:
        assert not self.abandoned.is_set()
        self.spool.on_feed(self, part)
        self.spool.kept.setdefault(self.key, []).append(part)
        self.fed += 1

    def close(self) -> pb.Receipt:
        verdict = pb.ACCEPTED if self.fault is None else pb.REFUSED
        receipt = pb.Receipt(key=self.key.message(), verdict=verdict, reason=str(self.fault or ""))
        self.spool.receipts[self.key] = receipt
        self.spool.notify(Replied(self.key))
        return receipt

    def abandon(self) -> None:
        self.abandoned.set()


@dataclass
class RunningFront:
    front: Front
    fleet: Fleet
    spool: Spool
    store: Store
    address: str
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    remembered: list[pb.Hello]

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            return grpc.insecure_channel(self.address, options)
        return grpc.secure_channel(self.address, credentials, options)

    def drain(self, grace_s: float) -> Any:
        return asyncio.run_coroutine_threadsafe(self.front.drain(grace_s, 0.5), self.loop)


@contextmanager
def running(
    options: FrontOptions | None = None,
    tls: Tls | None = None,
    listen: str = "127.0.0.1:0",
    more: "Sequence[grpc.GenericRpcHandler[bytes, bytes]]" = (),
) -> Iterator[RunningFront]:
    fleet, spool, store, remembered = Fleet(), Spool(), Store(), []
    spool.notify = fleet.tell
    started: queue.SimpleQueue[RunningFront | ConfigError] = queue.SimpleQueue()

    async def serve() -> None:
        stop = asyncio.Event()
        try:
            front = Front(fleet, spool, store, server_id="front", remember=remembered.append, options=options)
            front.server.add_generic_rpc_handlers(tuple(more))
            (taken,) = front.listen([parse_address(listen)], tls)
            await front.start()
        except ConfigError as error:
            started.put(error)
            return
        up = RunningFront(front, fleet, spool, store, str(taken), asyncio.get_running_loop(), stop, remembered)
        started.put(up)
        await stop.wait()
        await front.drain(0.2)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    up = started.get(timeout=WAIT_S)
    if isinstance(up, ConfigError):
        raise up
    try:
        yield up
    finally:
        up.loop.call_soon_threadsafe(up.stop.set)
        thread.join(WAIT_S)
        assert not thread.is_alive()


class Device:
    """One host's stream, by hand."""

    def __init__(self, channel: grpc.Channel, hello: pb.Hello) -> None:
        self.out: queue.SimpleQueue[pb.AgentEvent | None] = queue.SimpleQueue()
        self.out.put(pb.AgentEvent(hello=hello))
        join = channel.stream_stream(
            f"{SERVICE}/Join",
            request_serializer=pb.AgentEvent.SerializeToString,
            response_deserializer=pb.ServerEvent.FromString,
        )
        self.call = join(iter(self.out.get, None), timeout=WAIT_S)

    def next(self, kind: str) -> Any:
        event = next(self.call)
        assert event.WhichOneof("kind") == kind, event
        return getattr(event, kind)

    def say(self, **event: Any) -> None:
        self.out.put(pb.AgentEvent(**event))

    def leave(self) -> None:
        self.out.put(None)

    def end(self) -> grpc.StatusCode:
        """The status with which the stream ends; what still comes is passed over."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return error.code()
        finally:
            self.out.put(None)
        return grpc.StatusCode.OK


def hello(host: str = "pi", *agents: str, instance: str = "i1", **more: Any) -> pb.Hello:
    described = [pb.AgentDescription(name=name) for name in agents or (host,)]
    return pb.Hello(host=host, instance=instance, protocol=1, agents=described, **more)


def key(agent: str = "pi", step: int = 0, run: str = "r") -> Key:
    return Key(run, step, agent, pb.WORK)


def header(of: Key) -> bytes:
    return pb.Part(header=pb.RecordHeader(key=of.message())).SerializeToString()


def submit(channel: grpc.Channel, parts: Iterator[bytes]) -> Any:
    """The events of a Submit; what is sent is an iterator of serialised parts."""
    call = channel.stream_stream(f"{SERVICE}/Submit", None, pb.SubmitEvent.FromString)
    return call(parts, timeout=WAIT_S)


def fetch(channel: grpc.Channel, agent: str, sha256: bytes, offset: int = 0) -> Any:
    call = channel.unary_stream(f"{SERVICE}/Fetch", pb.FetchRequest.SerializeToString, pb.Part.FromString)
    return call(pb.FetchRequest(agent=agent, sha256=sha256, offset=offset), timeout=WAIT_S)
