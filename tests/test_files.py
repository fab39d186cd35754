"""The order of fsync and rename, and what a failure in the middle leaves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import files


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the operating system is asked for, by the names of the files."""
    made: list[str] = []

    def name(fd: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{fd}")).name

    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (made.append(f"fsync {name(fd)[:6]}"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (made.append(f"replace {b.name}"), replace(a, b))[1])
    return made


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")
def test_bytes_then_name_then_folder(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    files.write_durably(tmp_path / "folder" / "file", [b"ab", memoryview(b"cd")])
    assert calls == ["fsync .file.", "replace file", "fsync folder"]
    assert (tmp_path / "folder" / "file").read_bytes() == b"abcd"


def test_at_once_is_without_fsync(tmp_path: Path, calls: list[str]) -> None:
    files.write_at_once(tmp_path / "file", [b"ab"])
    assert calls == ["replace file"]


@pytest.mark.parametrize("write", [files.write_durably, files.write_at_once])
def test_a_failure_leaves_the_old_file_and_nothing_else(write: object, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", chunks())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_full_disk_says_what_to_do() -> None:
    fault = files.cannot_write(Path("/state/blobs/x"), OSError(28, "No space left on device"))
    assert str(fault) == (
        "cannot write /state/blobs/x: No space left on device; free some space there, or choose another state folder"
    )
