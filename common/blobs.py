"""A folder of payloads, each in a file named by the SHA-256 of its canonical bytes.

The server keeps its checkpoints' payloads and the agents' uploads in one, an agent its model, memory and pending
reply. A file is never changed once it has its name, so it is memory-mapped and shared without locks. What arrives
is written to `partial/` and takes its name when it is complete, verified and on the disk.
"""

import hashlib
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import files, pb
from common.errors import LocalFault
from common.payloads import Blob, Encoding, Mask, Origin
from common.receiver import Receiver
from common.wire import canonical
from common.wire.canonical import Expert, Sendable
from common.wire.limits import OWN, PART_BYTES, PEER, Limits
from common.wire.parts import parts

__all__ = ["Blobs", "Receiver"]

_MAPPED_FROM = 64 * 1024  # smaller files are read: a map holds a file descriptor for as long as its arrays live


class Blobs:
    """Content-addressed payloads in a folder. Threads and processes may share it.

    `durable=False` leaves out every fsync: for what can be made or fetched again.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._folder = folder
        self._partial = folder / "partial"
        self._partial.mkdir(parents=True, exist_ok=True)
        self.durable = durable
        self._lock = threading.Lock()
        self._known: dict[tuple[int, str | None, Encoding], tuple[weakref.ref[Any], pb.PayloadRef]] = {}
        self._receiving = threading.Lock()  # held while a partial file is hashed, which nobody else should wait for
        self._receivers: weakref.WeakValueDictionary[Path, Receiver] = weakref.WeakValueDictionary()

    def path(self, sha256: bytes) -> Path:
        return self._folder / sha256.hex()

    def has(self, sha256: bytes) -> bool:
        return self.path(sha256).exists()

    def digests(self) -> set[bytes]:
        """The payloads that are here and complete."""
        names = (entry.name for entry in os.scandir(self._folder) if entry.is_file())
        return {bytes.fromhex(name) for name in names if not name.startswith(".")}

    def remove(self, sha256: bytes) -> None:
        """Forget a payload; those who have it open keep it until they let go.

        What has arrived of one that is not complete stays: who sends it may be cut off just now. `tidy` ends that.
        """
        self.path(sha256).unlink(missing_ok=True)

    def tidy(self, before: float) -> None:
        """Remove unfinished files that were last written before this moment (Unix seconds)."""
        for unfinished in (*self._partial.iterdir(), *self._folder.glob(".*.tmp")):
            # its writer may finish or give up meanwhile; one that takes it up again makes it new, under the lock
            with self._receiving, suppress(FileNotFoundError):
                if unfinished.stat().st_mtime < before:
                    unfinished.unlink()

    def put(self, payload: Sendable, encoding: Encoding = "exact") -> pb.PayloadRef:
        """Keep a payload. One that came from here, or was kept before as the same object, is not written again."""
        origin = _usable_origin(payload, encoding)
        if origin is not None and self.has(origin.sha256):
            return pb.PayloadRef(sha256=origin.sha256, size=origin.size)
        known = self._remembered(payload, encoding)
        if known is not None and self.has(known.sha256):
            return known
        digest, size = hashlib.sha256(), 0
        for piece in canonical.encode(payload, encoding):
            digest.update(piece)
            size += len(piece)
        ref = pb.PayloadRef(sha256=digest.digest(), size=size)
        if not self.has(ref.sha256):
            self._write(self.path(ref.sha256), payload, encoding)
        self._remember(payload, encoding, ref)
        return ref

    def open(self, ref: pb.PayloadRef, *, limits: Limits = OWN, where: str = "", whole: bool = False) -> Any:
        """The payload, its arrays views of the file; nothing but its structure is read. Any: by what it holds.

        `whole`: every byte is read and held against the digest, which is for what has lain on the disk for long.
        """
        buffer = self._opened(ref.sha256)
        if len(buffer) != ref.size:
            raise LocalFault(f"{self.path(ref.sha256)} is damaged: expected {ref.size} bytes, got {len(buffer)}")
        if whole and (got := hashlib.sha256(buffer).digest()) != ref.sha256:
            raise LocalFault(f"{self.path(ref.sha256)} is damaged: its bytes have another digest, {got.hex()}")
        return canonical.decode(buffer, sha256=ref.sha256, limits=limits, where=where)

    def verify(self, ref: pb.PayloadRef, *, limits: Limits, where: str = "") -> None:
        """Hold a payload that came under other limits against these, every number of it."""
        canonical.verify(self._opened(ref.sha256), limits=limits, where=where)

    def parts(self, sha256: bytes, offset: int = 0, part_bytes: int = PART_BYTES) -> Iterator[bytes]:
        """Serialised Parts of a payload from an offset of its canonical bytes on."""
        yield from parts(self._opened(sha256), offset, part_bytes, sha256=sha256)

    def receive(self, ref: pb.PayloadRef, *, limits: Limits = PEER, where: str = "", owner: str = "") -> Receiver:
        """Take a payload in, going on where an earlier transfer of the same owner ended.

        A newer transfer of one owner takes over from an older one, whose connection must have died; transfers of
        different owners do not touch each other.
        """
        partial = self._partial_of(ref.sha256, owner)
        with self._receiving:
            older = self._receivers.pop(partial, None)
            if older is not None:
                older.abandon()
            receiver = Receiver(ref, partial, self.path(ref.sha256), durable=self.durable, limits=limits, where=where)
            self._receivers[partial] = receiver
        return receiver

    def drop(self, sha256: bytes, owner: str) -> None:
        """Forget what has arrived of a payload from one owner, unless it is just arriving."""
        partial = self._partial_of(sha256, owner)
        with self._receiving:
            receiver = self._receivers.get(partial)
            if receiver is None or not receiver.is_open:
                partial.unlink(missing_ok=True)

    def _partial_of(self, sha256: bytes, owner: str) -> Path:
        return self._partial / f"{sha256.hex()}-{hashlib.sha256(owner.encode()).hexdigest()[:12]}"

    def _opened(self, sha256: bytes) -> memoryview:
        path = self.path(sha256)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < _MAPPED_FROM:
                    return memoryview(file.read())
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError as error:
            raise LocalFault(f"payload {sha256.hex()} is not in {self._folder}: was it removed?") from error
        except OSError as error:
            raise LocalFault(f"cannot read {path}: {error.strerror}") from error

    def _write(self, path: Path, payload: Sendable, encoding: Encoding) -> None:
        write = files.write_durably if self.durable else files.write_at_once
        try:
            write(path, canonical.encode(payload, encoding))
        except OSError as error:
            raise files.cannot_write(path, error) from error

    def _remembered(self, payload: Sendable, encoding: Encoding) -> pb.PayloadRef | None:
        subject, node = _subject(payload)
        with self._lock:
            kept = self._known.get((id(subject), node, encoding))
        return kept[1] if kept is not None and kept[0]() is subject else None

    def _remember(self, payload: Sendable, encoding: Encoding, ref: pb.PayloadRef) -> None:
        subject, node = _subject(payload)
        key = (id(subject), node, encoding)
        with self._lock:
            self._known[key] = (weakref.ref(subject, lambda _: self._known.pop(key, None)), ref)


def _subject(payload: Sendable) -> tuple[Any, str | None]:
    """The object whose life a digest is remembered for: an Expert is made anew wherever it is needed."""
    return (payload.weights, payload.node) if isinstance(payload, Expert) else (payload, None)


def _usable_origin(payload: Sendable, encoding: Encoding) -> Origin | None:
    """Where the payload came from, if those bytes are what this encoding would say of it.

    What was decoded is exactly what its bytes say, so any origin will do where nothing may be lost.
    """
    subject, node = _subject(payload)
    origin: Origin | None = subject.origin
    if origin is None or origin.node != node:
        return None
    fits = encoding in ("exact", "float32", origin.encoding) or isinstance(payload, Mask | Blob)
    return origin if fits else None
