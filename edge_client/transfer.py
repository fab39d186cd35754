"""Payloads in, replies out: each goes on from the byte where it broke off, and is tried until the server has spoken.

A transfer is only given up when the server is there and still nothing moves, so a task can end while the link lives.
"""

import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from common import pb
from common.blobs import Blobs
from common.errors import LinkLost, RemoteFault
from common.files import fsync_file, fsync_folder
from common.task_key import Key
from common.wire.limits import Limits
from edge_client.link import Backoff, Link
from edge_client.offers import InHand
from edge_client.presence import Presence
from edge_client.trouble import Trouble
from edge_client.watch import Progress, watched

log = logging.getLogger(__name__)

GRPC_BYTES = 5  # in front of each message: one flag, four of length
TRIES = 8  # in a row without a byte, while the server is there: about a minute and a half
STALL_S = 120.0
QUEUE_S = 600.0  # a busy server lets uploads wait their turn; keepalive sees when it is gone
# A transfer that moved before one of these may go on for ever; one that ends in any other way has a fault.
BROKEN_LINK = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})
T = TypeVar("T")


class Withdrawn(Exception):
    """The server wants this task no more."""


@dataclass
class Traffic:
    """What one task sent and received, as serialised messages and 5 bytes each, and how long it took."""

    bytes_up: int = 0
    bytes_down: int = 0
    encode_s: float = 0.0
    submit_s: float = 0.0
    fetch_s: float = 0.0
    moved: int = 0  # parts of payloads

    def up(self, n_bytes: int) -> None:
        self.bytes_up += n_bytes + GRPC_BYTES

    def down(self, n_bytes: int) -> None:
        self.bytes_down += n_bytes + GRPC_BYTES

    def report(self, key: pb.TaskKey) -> pb.TransferReport:
        return pb.TransferReport(
            key=key,
            encode_s=self.encode_s,
            submit_s=self.submit_s,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
        )


@dataclass
class Transfers:
    """Over one link into one folder of blobs; may be called from several threads.

    `blobs` need not be durable: what is fetched can be fetched again. `make_durable` is for what is kept all the same.
    """

    link: Link
    blobs: Blobs
    presence: Presence
    new_backoff: Callable[[], Backoff] = Backoff
    _loose: set[bytes] = field(default_factory=set)  # fetched, and perhaps not yet on the disk
    _fetching: "defaultdict[bytes, threading.Lock]" = field(default_factory=lambda: defaultdict(threading.Lock))

    def fetch(self, ref: pb.PayloadRef, task: InHand, traffic: Traffic, *, limits: Limits) -> None:
        """Bring a payload into Blobs, unless it is there; two tasks that want the same one fetch it once.

        Raises:
            LinkLost, Withdrawn, Ending.
        """
        started = time.monotonic()
        with self._fetching[ref.sha256]:
            if not self.blobs.has(ref.sha256):
                self._persist(task, "fetch", traffic, lambda: self._fetch(ref, task, traffic, limits))
        self._fetching.pop(ref.sha256, None)
        traffic.fetch_s += time.monotonic() - started

    def make_durable(self, refs: Iterable[pb.PayloadRef]) -> None:
        """Force those of them to the disk that were fetched: a memory that names them must find them."""
        loose = {ref.sha256 for ref in refs} & self._loose
        for digest in loose:
            with self.blobs.path(digest).open("rb") as file:
                fsync_file(file.fileno())
        if loose:
            fsync_folder(self.blobs.path(next(iter(loose))).parent)
        self._loose -= loose

    def submit(self, header: pb.RecordHeader, task: InHand, traffic: Traffic) -> pb.Receipt:
        """Send a reply until there is a receipt.

        Raises:
            LinkLost, Withdrawn, Ending.
        """
        started = time.monotonic()
        receipt = self._persist(task, "submit", traffic, lambda: self._submit(header, task, traffic))
        traffic.submit_s += time.monotonic() - started
        return receipt

    def _persist(self, task: InHand, what: str, traffic: Traffic, attempt: Callable[[], T]) -> T:
        backoff, tries, moved = self.new_backoff(), 0, traffic.moved
        while True:
            if task.withdrawn.is_set():
                raise Withdrawn
            try:
                return attempt()
            except grpc.RpcError as error:
                found = self.link.explain(error)
            except LinkLost as fault:
                found = Trouble(str(fault), grpc.StatusCode.UNAVAILABLE)
            except (RemoteFault, pb.DecodeError) as fault:
                found = Trouble(str(fault), grpc.StatusCode.DATA_LOSS)
            if task.withdrawn.is_set():
                raise Withdrawn  # which may be why it broke off
            if found.code in BROKEN_LINK and traffic.moved > moved:
                tries = 0
                backoff.reset()
            moved = traffic.moved
            if found.code is not grpc.StatusCode.RESOURCE_EXHAUSTED and self.presence.is_joined:
                tries += 1  # busy is not broken
            if tries >= TRIES:
                raise LinkLost(f"{what} given up after {tries} tries: {found.sentence}")
            wait_s = backoff.after(asked_s=found.retry_after_s)
            log.warning('%s_failed %s again_in_s=%.1f reason="%s"', what, task.key.logged, wait_s, found.sentence)
            self.presence.wait(wait_s)

    def _fetch(self, ref: pb.PayloadRef, task: InHand, traffic: Traffic, limits: Limits) -> None:
        key = task.key
        where = f"run {key.run}, step {key.step}, agent {key.agent}"
        with self.blobs.receive(ref, limits=limits, where=where) as receiver:
            request = pb.FetchRequest(agent=key.agent, sha256=ref.sha256, offset=receiver.offset)
            traffic.up(request.ByteSize())
            call = self.link.fetch(request)
            try:
                progress = Progress(STALL_S)
                with watched(call, progress):
                    for part in call:
                        if task.withdrawn.is_set():
                            raise Withdrawn
                        progress.tick()
                        traffic.down(len(part))
                        receiver.feed(part)
                        traffic.moved += 1
                receiver.finish()
                self._loose.add(ref.sha256)
            finally:
                call.cancel()

    def _submit(self, header: pb.RecordHeader, task: InHand, traffic: Traffic) -> pb.Receipt:
        offsets: queue.SimpleQueue[tuple[int, ...] | None] = queue.SimpleQueue()
        progress = Progress(QUEUE_S)

        def is_wanted() -> bool:
            if not task.withdrawn.is_set():
                return True
            call.cancel()  # a stream that just ended would be taken for all there is
            return False

        call = self.link.submit(self._parts(header, offsets, traffic, progress, is_wanted))
        receipt: pb.Receipt | None = None
        try:
            with watched(call, progress):
                for data in call:
                    progress.tick()
                    traffic.down(len(data))
                    event = pb.SubmitEvent.FromString(data)
                    match event.WhichOneof("kind"):
                        case "receipt":
                            _check_receipt(event.receipt, header)
                            receipt = event.receipt
                            offsets.put(None)
                        case "resume":
                            _check_offsets(event.resume, header)
                            progress.idle_s = STALL_S
                            offsets.put(tuple(event.resume.offsets))
        except grpc.RpcError:
            if receipt is None:
                raise
        finally:
            offsets.put(None)
            call.cancel()
        if receipt is None:
            raise LinkLost("the server ended the submit without a receipt")
        return receipt

    def _parts(
        self,
        header: pb.RecordHeader,
        offsets: "queue.SimpleQueue[tuple[int, ...] | None]",
        traffic: Traffic,
        progress: Progress,
        is_wanted: Callable[[], bool],
    ) -> Iterator[bytes]:
        """The header, then of each payload what the server does not hold yet. Runs in a thread of gRPC's.

        `is_wanted` is asked before each part, so never once the server has all of them and may have taken the reply.
        """
        first = pb.Part(header=header).SerializeToString()
        traffic.up(len(first))
        yield first
        held = offsets.get()
        if held is None:
            return
        for ref, offset in zip(header.record.payloads, held, strict=True):
            if offset == ref.size:
                continue
            parts = self.blobs.parts(ref.sha256, offset, self.presence.part_bytes)
            while True:
                started = time.monotonic()
                part = next(parts, None)
                traffic.encode_s += time.monotonic() - started
                if part is None:
                    break
                if not is_wanted():
                    return
                progress.tick()
                traffic.up(len(part))
                yield part
                traffic.moved += 1


def _check_receipt(receipt: pb.Receipt, header: pb.RecordHeader) -> None:
    if receipt.key != header.key:
        raise RemoteFault(f"receipt for another reply: expected {Key.of(header.key)}, got {Key.of(receipt.key)}")


def _check_offsets(resume: pb.Resume, header: pb.RecordHeader) -> None:
    sizes = [ref.size for ref in header.record.payloads]
    if len(resume.offsets) != len(sizes) or any(o > s for o, s in zip(resume.offsets, sizes, strict=False)):
        raise RemoteFault(
            f"{Key.of(header.key)}: the server goes on from impossible places: expected up to {sizes},"
            f" got {list(resume.offsets)}"
        )
