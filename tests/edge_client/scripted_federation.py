"""A Federation server that does what a test tells it to: offers on demand, faults by script, everything recorded.

It keeps to the protocol where no fault is scripted: offers go out again at every join until they are answered,
payloads come from Blobs, replies go into Blobs and are accepted once.
"""

import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from common import pb
from common.blobs import Blobs
from common.payloads import Blob
from common.runfile import parse, to_blob

WAIT_S = 60.0
RUN_TOML = '[run]\nmethod = "{method}"\nrounds = 3\n[model]\nname = "linear"\n'
Fault = Callable[[grpc.ServicerContext], None]


def status(code: grpc.StatusCode, details: str = "as scripted", **metadata: str) -> Fault:
    def fault(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(tuple((key.replace("_", "-"), value) for key, value in metadata.items()))
        context.abort(code, details)

    return fault


class Federation:
    def __init__(
        self,
        folder: Path,
        *,
        credentials: grpc.ServerCredentials | None = None,
        port: int = 0,
        add: Callable[[grpc.Server], None] | None = None,
    ) -> None:
        self.blobs = Blobs(folder / "server-blobs", durable=False)
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)  # method -> what the next calls meet
        self.receipts: list[pb.Receipt] = []  # what the next submits get instead of ACCEPTED
        self.heard: queue.SimpleQueue[pb.AgentEvent] = queue.SimpleQueue()
        self.calls: Counter[str] = Counter()
        self.fetched: Counter[bytes] = Counter()
        self.offsets: list[int] = []  # at which fetches began
        self.submit_answers: list[list[pb.SubmitEvent]] = []  # what the next submits are told, whatever they send
        self.cut_fetch_after: list[int] = []  # the next fetches break off after so many parts
        self.cut_submit_after: list[int] = []
        self.replies: dict[bytes, pb.RecordHeader] = {}  # by serialised key
        self.submitted: queue.SimpleQueue[pb.RecordHeader] = queue.SimpleQueue()
        self.pause_s = 0.0  # before each part
        self.welcome = pb.Welcome(server="scripted", protocol=1, part_bytes=4096)
        self._open: dict[bytes, pb.Offer] = {}
        self._streams: list[queue.SimpleQueue[pb.ServerEvent | None]] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_handlers(self),))
        if add is not None:
            add(self._server)
        where = f"localhost:{port}"
        self.port = (
            self._server.add_secure_port(where, credentials) if credentials else self._server.add_insecure_port(where)
        )
        self._server.start()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    # ------------------------------------------------------------------ for the test

    def run(self, method: str = "fedavg", name: str = "r", more: str = "") -> pb.PayloadRef:
        return self.blobs.put(to_blob(parse(RUN_TOML.format(method=method) + more, "test"), name))

    def payload(self, data: bytes) -> pb.PayloadRef:
        return self.blobs.put(Blob("application/x-test", data))

    def offer(self, offer: pb.Offer) -> pb.Offer:
        with self._lock:
            self._open[offer.key.SerializeToString()] = offer
            for stream in self._streams:
                stream.put(pb.ServerEvent(offer=offer))
        return offer

    def close(self, offer: pb.Offer) -> None:
        """Offer it no more, without a word to anybody."""
        self._close(offer.key.SerializeToString())

    def push(self, event: pb.ServerEvent) -> None:
        with self._lock:
            for stream in self._streams:
                stream.put(event)

    def drop_streams(self) -> None:
        with self._lock:
            for stream in self._streams:
                stream.put(None)

    def expect(self, kind: str) -> pb.AgentEvent:
        """The next event of that kind; others before it are passed over."""
        while True:
            event = self.heard.get(timeout=WAIT_S)
            if event.WhichOneof("kind") == kind:
                return event

    def reply(self) -> pb.RecordHeader:
        """The next reply that was accepted."""
        return self.submitted.get(timeout=WAIT_S)

    def stop(self) -> None:
        self.drop_streams()
        self._server.stop(0.2).wait(WAIT_S)

    # ------------------------------------------------------------------ the methods

    def join(self, events: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin("join", context)
        stream: queue.SimpleQueue[pb.ServerEvent | None] = queue.SimpleQueue()
        first = pb.AgentEvent.FromString(next(events))
        self.heard.put(first)
        with self._lock:
            stream.put(pb.ServerEvent(welcome=self.welcome))
            for offer in self._open.values():
                stream.put(pb.ServerEvent(offer=offer))
            self._streams.append(stream)
        threading.Thread(target=self._listen, args=(events, stream), daemon=True).start()
        try:
            while (event := stream.get()) is not None:
                yield event.SerializeToString()
                if event.WhichOneof("kind") in ("come_back", "refused"):
                    return
        finally:
            with self._lock:
                self._streams.remove(stream)

    def _listen(self, events: Iterator[bytes], stream: "queue.SimpleQueue[pb.ServerEvent | None]") -> None:
        try:
            for data in events:
                event = pb.AgentEvent.FromString(data)
                if event.WhichOneof("kind") in ("declined", "prepared"):
                    key = getattr(event, event.WhichOneof("kind")).key
                    with self._lock:
                        self._open.pop(key.SerializeToString(), None)
                self.heard.put(event)
        except grpc.RpcError:
            pass  # the stream was cut
        stream.put(None)

    def fetch(self, data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin("fetch", context)
        request = pb.FetchRequest.FromString(data)
        self.fetched[request.sha256] += 1
        self.offsets.append(request.offset)
        cut = self.cut_fetch_after.pop(0) if self.cut_fetch_after else None
        for n, part in enumerate(self.blobs.parts(request.sha256, request.offset, 4096)):
            if n == cut:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut as scripted")
            if self.pause_s:
                threading.Event().wait(self.pause_s)
            yield part

    def submit(self, parts: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin("submit", context)
        header = pb.Part.FromString(next(parts)).header
        if self.submit_answers:
            yield from (answer.SerializeToString() for answer in self.submit_answers.pop(0))
            return
        key = header.key.SerializeToString()
        if self.receipts:
            receipt = self.receipts.pop(0)
            receipt.key.CopyFrom(header.key)
            self._close(key)
            yield pb.SubmitEvent(receipt=receipt).SerializeToString()
            return
        if key not in self.replies:
            cut = self.cut_submit_after.pop(0) if self.cut_submit_after else None
            receivers = [self.blobs.receive(ref) for ref in header.record.payloads]
            offsets = [receiver.offset for receiver in receivers]
            n = 0
            try:
                yield pb.SubmitEvent(resume=pb.Resume(offsets=offsets)).SerializeToString()
                for receiver, ref, offset in zip(receivers, header.record.payloads, offsets, strict=True):
                    if offset == ref.size:
                        continue
                    for part in parts:
                        if n == cut:
                            context.abort(grpc.StatusCode.UNAVAILABLE, "cut as scripted")
                        n += 1
                        if self.pause_s:
                            threading.Event().wait(self.pause_s)
                        receiver.feed(part)
                        if pb.Part.FromString(part).HasField("end"):
                            break
                    receiver.finish()
            finally:
                for receiver in receivers:
                    receiver.abandon()
            self.replies[key] = header
            self.submitted.put(header)
        self._close(key)
        yield pb.SubmitEvent(receipt=pb.Receipt(key=header.key, verdict=pb.ACCEPTED)).SerializeToString()

    def _begin(self, method: str, context: grpc.ServicerContext) -> None:
        self.calls[method] += 1
        if self.faults[method]:
            self.faults[method].pop(0)(context)

    def _close(self, key: bytes) -> None:
        with self._lock:
            self._open.pop(key, None)


def _handlers(server: Federation) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        "edgefed.v1.Federation",
        {
            "Join": grpc.stream_stream_rpc_method_handler(server.join),
            "Fetch": grpc.unary_stream_rpc_method_handler(server.fetch),
            "Submit": grpc.stream_stream_rpc_method_handler(server.submit),
        },
    )
