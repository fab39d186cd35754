"""Writing files so that they survive a power cut: the only place that calls fsync and replace.

Durability is an order: the bytes, then the name, then the folder that holds the name. A test records the calls
made here and asserts it, because killing a process cannot show a missing fsync.
"""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from common.errors import LocalFault

Chunk = bytes | bytearray | memoryview


def fsync_file(fd: int) -> None:
    os.fsync(fd)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(src: Path, dst: Path) -> None:
    os.replace(src, dst)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that no other thread or process will take; it starts with a dot."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def write_durably(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write a whole file; after a crash it is there entirely, or as it was before."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            fsync_file(file.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_at_once(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write a whole file that readers never see half of; unlike `write_durably`, a power cut may lose it."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def cannot_write(path: Path, error: OSError) -> LocalFault:
    return LocalFault(f"cannot write {path}: {error.strerror}; free some space there, or choose another state folder")
