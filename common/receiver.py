"""One payload on its way in: written as it arrives, verified, then given its name."""

import mmap
import threading
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from common import files, pb
from common.errors import LinkLost, RemoteFault
from common.wire.limits import Limits
from common.wire.parts import Assembler


class Receiver:
    """Takes the parts of one payload into `partial`, which becomes `final` when all of it is there and verified.

    `partial` outlives a lost connection and a crash; `offset` says how much of it counts. It is the size of the payload
    only when that is here already: then there is nothing to feed, and `finish` does nothing. A part that breaks the
    contract ends the transfer and deletes `partial`; one that was damaged on its way (LinkLost) leaves it.
    """

    def __init__(
        self, ref: pb.PayloadRef, partial: Path, final: Path, *, durable: bool, limits: Limits, where: str
    ) -> None:
        self._partial = partial
        self._final = final
        self._durable = durable
        self._size = ref.size
        self._lock = threading.Lock()  # a newer transfer may take over from another thread
        if final.exists():
            self._assembler, self._file = None, None
            return
        partial.touch()
        self._assembler = _assembler(ref, partial, limits, where)
        self._file = partial.open("r+b", buffering=0)  # what a full disk refuses must not come up again at close
        self._file.truncate(self._assembler.offset)
        self._file.seek(self._assembler.offset)

    @property
    def offset(self) -> int:
        """Canonical bytes that need not be sent again."""
        return self._size if self._assembler is None else self._assembler.offset

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def feed(self, part: bytes) -> None:
        """Check a part and write what it carries.

        Raises:
            RemoteFault: the peer broke the contract; what had arrived is deleted.
            LinkLost: the part was damaged on its way, or a newer transfer took over.
            LocalFault: the disk would not take it; what had arrived is deleted.
        """
        with self._lock:
            if self._assembler is None or self._file is None:
                raise LinkLost("this transfer has ended: the payload is here, or a newer transfer took over")
            try:
                _write(self._file, self._assembler.feed(part))
            except RemoteFault:
                self._discard()
                raise
            except OSError as error:
                self._discard()  # on a full disk it would only be in the way
                raise files.cannot_write(self._partial, error) from error

    def finish(self) -> None:
        """Verify the whole and give it its name, durably; only after this may the payload be spoken of.

        Raises:
            RemoteFault: not all of it came (what did is kept), or it has another digest (it is deleted).
            LinkLost: as the latter when part of it is of an earlier transfer; or a newer transfer took over.
        """
        with self._lock:
            if self._assembler is None:
                return
            if self._file is None:
                raise LinkLost("this transfer has ended: a newer transfer took over")
            try:
                self._assembler.finish()
            except (RemoteFault, LinkLost):
                if self._assembler.offset == self._size:
                    self._discard()
                raise
            try:
                if self._durable:
                    files.fsync_file(self._file.fileno())
                self._close()
                files.replace(self._partial, self._final)
                if self._durable:
                    files.fsync_folder(self._final.parent)
            except OSError as error:
                raise files.cannot_write(self._final, error) from error
            self._assembler = None

    def abandon(self) -> None:
        """Stop; what has arrived stays for the next transfer. After `finish` this does nothing."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _discard(self) -> None:
        self._close()
        self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _write(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _assembler(ref: pb.PayloadRef, partial: Path, limits: Limits, where: str) -> Assembler:
    """One that goes on where the file ends; the file is mapped, not read, so that memory stays small."""
    size = partial.stat().st_size
    if not 0 < size <= ref.size:
        return Assembler(ref, limits=limits, where=where)
    with partial.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return Assembler(ref, limits=limits, where=where, held=held)
