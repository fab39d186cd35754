"""What Submit does: one reply comes in, is checked, made durable, journalled, and only then acknowledged.

The order is fsync(spool) -> journal commit -> receipt. A reply is known by (run, step, agent, kind): sent again, it
gets its first receipt again; sent after its step has closed, it is late and nothing of it is kept. Called from a
thread pool; knows no transport.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common import methods, pb, runfile
from common.blobs import Blobs
from common.errors import RemoteFault
from common.payloads import Blob
from common.receiver import Receiver
from common.task_key import Key
from common.wire import records
from common.wire.limits import PEER, Limits
from server import claims, retention
from server.events import Replied
from server.journal import Journal

_END = bytes([10 << 3 | 2])  # the first byte of a serialised Part that holds a RecordEnd


class Intake:
    def __init__(self, journal: Journal, blobs: Blobs, notify: Callable[[Replied], None]) -> None:
        self._journal = journal
        self._blobs = blobs
        self._notify = notify
        self._runs: dict[str, runfile.Run] = {}
        self._cut: dict[Key, list[bytes]] = {}  # uploads that broke off, by the payloads that they are of
        self._lock = threading.Lock()

    def open(self, header: pb.RecordHeader) -> "pb.Receipt | Upload":
        """Begin a submit: its receipt when nothing needs to be sent, else what goes on at `Upload.offsets`."""
        key = Key.of(header.key)
        try:
            known = self._known(key, records.digest(header.record))
            if known is not None:
                return known
            return Upload(self, key, header)
        except RemoteFault as fault:
            return receipt(key, pb.REFUSED, str(fault))

    def _known(self, key: Key, digest: bytes) -> pb.Receipt | None:
        """The receipt of a reply that need not be sent: already here, or too late."""
        before = self._journal.reply_digest(key)
        if before == digest:
            return receipt(key, pb.ACCEPTED)
        if before is not None:
            raise RemoteFault(
                f"{key}: another reply of this step was accepted before; this one is dropped:"
                f" expected {before.hex()[:16]}, got {digest.hex()[:16]}"
            )
        if self._journal.summary(key.run) is None:
            raise RemoteFault(f"{key}: this server has no such run; it is dropped")
        if self._journal.was_last_merged(key):  # so long ago that its digest is forgotten
            return receipt(key, pb.ACCEPTED)
        is_over = key.kind == pb.WORK and self._journal.is_over(key)
        if not is_over and (key.kind not in (pb.WORK, pb.EVALUATE) or not self._journal.was_asked(key)):
            raise RemoteFault(f"{key}: this agent was not asked for that")
        if not self._is_awaited(key):
            return receipt(key, pb.LATE, f"{key}: the step is closed, nothing was kept")
        return None

    def _is_awaited(self, key: Key) -> bool:
        summary = self._journal.summary(key.run)
        return summary is not None and summary.status == "running" and self._journal.is_open(key)

    def _take(self, key: Key, header: pb.RecordHeader) -> pb.Receipt | None:
        """The payloads are durable: journal the reply. A receipt when its step has closed meanwhile, or it is known."""
        digest = records.digest(header.record)
        with self._journal.commit() as db:
            known = self._known(key, digest)
            if known is None:
                values = (*key, digest, header.SerializeToString())
                db.execute(
                    "INSERT INTO replies(run, step, agent, kind, digest, header) VALUES (?, ?, ?, ?, ?, ?)", values
                )
                retention.own(self._journal, retention.reply_owner(key), _digests(header))
        return known

    def _broke_off(self, key: Key, digests: list[bytes]) -> None:
        with self._lock:
            self._cut[key] = digests

    def _drop_closed(self) -> None:
        """Forget what came of uploads whose steps have closed since: their agents will not go on there."""
        with self._lock:
            closed = {key: self._cut.pop(key) for key in list(self._cut) if not self._is_awaited(key)}
        for key, digests in closed.items():
            for sha256 in digests:
                self._blobs.drop(sha256, key.agent)

    def _limits(self, run: str) -> Limits:
        """What a reply may hold: classes and taxonomy nodes that exist, NaN only where the run allows it."""
        found = self._run(run)
        edges = found.taxonomy
        return replace(
            PEER,
            n_classes=None if found.classes is None else len(found.classes),
            nodes=None if edges is None else frozenset(node for edge in edges for node in edge),
            allow_non_finite=found.file.wire.non_finite == "allow",
        )

    def _reply_type(self, run: str) -> type:
        return methods.load(self._run(run).file.run.method).Reply

    def _run(self, name: str) -> runfile.Run:
        if name not in self._runs:
            row = self._journal.row("SELECT blob FROM runs WHERE run = ?", name)
            if row is None:
                raise RemoteFault(f"this server has no run {name!r}")
            self._runs[name] = runfile.from_blob(Blob(runfile.MEDIA_TYPE, row["blob"]))
        return self._runs[name]


class Upload:
    """One reply on its way in; used by one thread at a time. End it with `close` or `abandon`."""

    def __init__(self, intake: Intake, key: Key, header: pb.RecordHeader) -> None:
        self.key = key
        self._intake = intake
        self._header = header
        self._where = str(key)
        self._fault: RemoteFault | None = None
        self._limits = intake._limits(key.run)
        self._check()
        self._pin = f"upload {key} {id(self)}"
        self._receivers: list[Receiver] = []
        retention.pin(intake._journal, self._pin, _digests(header))
        try:
            self.offsets = self._begin()
        except BaseException:
            self.abandon()
            raise

    def feed(self, part: bytes) -> None:
        """One serialised Part, in the order of the payloads that are asked for.

        Raises:
            RemoteFault: it is broken; `close` then gives the receipt that says so.
            LinkLost: it was damaged on its way; submit again.
        """
        try:
            if not self._receivers:
                raise RemoteFault(f"{self._where}: a part came after the last payload that was asked for")
            self._receivers[0].feed(part)
            if part[:1] == _END:
                self._receivers[0].finish()
                del self._receivers[0]
        except RemoteFault as fault:
            self._fault = fault
            raise

    def close(self) -> pb.Receipt:
        """All parts are here: check the whole, make it durable, and give the receipt."""
        try:
            other = self._settle()
        finally:
            self.abandon()
        if other is None:  # only now: who hears of it may sweep at once, and would find what is still pinned
            self._intake._notify(Replied(self.key))
        return other or receipt(self.key, pb.ACCEPTED)

    def abandon(self) -> None:
        """The stream is over; what came stays, and the next submit goes on there."""
        if self._receivers:
            self._intake._broke_off(self.key, _digests(self._header))
        for receiver in self._receivers:
            receiver.abandon()
        self._receivers.clear()
        self._intake._drop_closed()
        retention.unpin(self._intake._journal, self._pin)

    def _check(self) -> None:
        claims.check(self._header.report, f"{self._where}, report")
        if self.key.kind == pb.WORK:
            reply_type = self._intake._reply_type(self.key.run)
            records.check(reply_type, self._header.record, where=self._where, limits=self._limits)
        elif self._header.record != pb.Record():
            raise RemoteFault(f"{self._where}: an evaluation brings no reply of the method")

    def _begin(self) -> list[int]:
        offsets = []
        for ref in self._header.record.payloads:
            receiver = self._intake._blobs.receive(ref, limits=self._limits, where=self._where, owner=self.key.agent)
            offsets.append(receiver.offset)
            if receiver.offset < ref.size:
                self._receivers.append(receiver)
            else:  # here already: it may have come under another run's rules
                self._intake._blobs.verify(ref, limits=self._limits, where=self._where)
        return offsets

    def _payload(self, ref: pb.PayloadRef, _type: object) -> Any:  # Any: by what it holds
        return self._intake._blobs.open(ref, limits=self._limits, where=self._where)

    def _settle(self) -> pb.Receipt | None:
        """Take the reply; the receipt that says why it was not taken, if so."""
        if self._fault is None and self._receivers:
            self._fault = RemoteFault(
                f"{self._where}: the submit ended early; payloads that are not complete: {len(self._receivers)}"
            )
        try:
            if self._fault is not None:
                raise self._fault
            if self.key.kind == pb.WORK:
                reply_type = self._intake._reply_type(self.key.run)
                records.decode(reply_type, self._header.record, self._payload, where=self._where, limits=self._limits)
            return self._intake._take(self.key, self._header)
        except RemoteFault as fault:
            return receipt(self.key, pb.REFUSED, str(fault))


def receipt(key: Key, verdict: "pb.Verdict", reason: str = "") -> pb.Receipt:
    return pb.Receipt(key=key.message(), verdict=verdict, reason=reason)


def _digests(header: pb.RecordHeader) -> list[bytes]:
    return [ref.sha256 for ref in header.record.payloads]
