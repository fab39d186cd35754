"""The agent's state folder: who this installation is, and that nobody else works in it.

lock        held by the running agent
format      version of the layout
instance    random, made once: tells a restarted agent from a second one of the same name
blobs/      payloads by content
memory/     what each agent keeps from step to step
"""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import EXIT_STATE, ConfigError
from common.files import write_durably

FORMAT = 1


@dataclass(frozen=True)
class Folder:
    path: Path
    instance: str

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def memory(self) -> Path:
        return self.path / "memory"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """The folder, made where it is missing, locked until the context ends.

    Raises:
        ConfigError: it cannot be written, another process has it, or a newer version wrote it.
    """
    try:
        descriptor, folder = _taken(path)
    except OSError as fault:
        raise unusable(path, fault) from fault
    try:
        yield folder
    finally:
        os.close(descriptor)  # and with it the lock


def _taken(path: Path) -> tuple[int, Folder]:
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, path)
        _check_format(path)
        return descriptor, Folder(path, _instance(path))
    except BaseException:
        os.close(descriptor)
        raise


def unusable(path: Path, fault: OSError) -> ConfigError:
    what = "is on a full disk: free some space" if fault.errno == errno.ENOSPC else "cannot be used"
    return ConfigError(
        f"state folder {path} {what}; give another with --state-dir: {fault.strerror}", exit_code=EXIT_STATE
    )


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise ConfigError(
            f"state folder {path} is in use by another edge-agent; stop that one or give this one its own"
            f" --state-dir: process {holder}",
            exit_code=EXIT_STATE,
        ) from fault
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _check_format(path: Path) -> None:
    file = path / "format"
    if not file.exists():
        write_durably(file, [b"%d\n" % FORMAT])
        return
    text = file.read_text("ascii", "replace").strip()
    if not text.isdigit() or int(text) > FORMAT:
        raise ConfigError(
            f"state folder {path} was written by another version of edge-agent; update this one or give another"
            f" --state-dir: expected format {FORMAT}, got {text[:20] or 'nothing'}",
            exit_code=EXIT_STATE,
        )


def _instance(path: Path) -> str:
    file = path / "instance"
    if file.exists() and (kept := file.read_text("ascii", "replace").strip()):
        return kept
    instance = secrets.token_hex(16)
    write_durably(file, [instance.encode()])
    return instance
