"""Arrays that stay in their files: samples are read by position when a task asks for them.

Reading, not mapping: mapped pages of a file count as resident memory of the process, so every report would show
parts of the data set that the task never asked for.
"""

import struct
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from common.errors import EXIT_DATA, ConfigError
from common.samples import Labels


@dataclass(frozen=True)
class Stored:
    """`n` samples of equal shape, one after another in C order from `offset` of a file."""

    path: Path
    offset: int
    n: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def sample_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class StoredSource:
    """Samples in one or several files, counted through in the order given."""

    pieces: tuple[Stored, ...]
    labels: Labels
    digest: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        first = self.pieces[0]
        out = np.empty((len(positions), *first.shape), first.dtype)
        start = 0
        for piece in self.pieces:
            here = np.flatnonzero((positions >= start) & (positions < start + piece.n))
            if len(here):
                try:
                    _read(piece, positions[here] - start, here, out)
                except OSError as error:
                    raise ConfigError(f"data {piece.path} cannot be read: {error}", exit_code=EXIT_DATA) from error
            start += piece.n
        return out


def of_npy(path: Path) -> Stored:
    """The array of an .npy file."""
    with path.open("rb") as file:
        shape, dtype, offset = _npy_header(file)
    return Stored(path, offset, shape[0], shape[1:], dtype)


def of_npz_member(path: Path, name: str) -> Stored | None:
    """The array of that name in an .npz, when it lies there uncompressed and in C order."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(member) as file:
            try:
                shape, dtype, header = _npy_header(file)
            except ValueError:
                return None
    with path.open("rb") as raw:  # the name's and the extra field's lengths may differ from the directory's
        raw.seek(member.header_offset + 26)
        n_name, n_extra = struct.unpack("<HH", raw.read(4))
    return Stored(path, member.header_offset + 30 + n_name + n_extra + header, shape[0], shape[1:], dtype)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if is_fortran or dtype.hasobject or not shape:
        raise ValueError(f"expected rows in C order, got shape {shape} of {dtype}")
    return shape, dtype, file.tell()


def _read(piece: Stored, rows: NDArray[np.int64], places: NDArray[np.int64], out: NDArray[np.generic]) -> None:
    """Rows of the piece into these places of `out`; rows that follow each other are read at once."""
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(places) != 1)) + 1
    flat = out.reshape(len(out), -1).view(np.uint8)  # (n, bytes of a sample)
    with piece.path.open("rb", buffering=0) as file:
        for run in np.split(np.arange(len(rows)), breaks):
            target = flat[places[run[0]] : places[run[-1]] + 1].reshape(-1).data
            file.seek(piece.offset + int(rows[run[0]]) * piece.sample_bytes)
            done = 0
            while done < len(target):
                got = file.readinto(target[done:])
                if not got:
                    raise OSError(f"it ended early, expected {piece.n} samples from byte {piece.offset}")
                done += got
