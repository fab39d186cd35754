"""Data in one npz: `x`, `y`, optional `x_test`, `y_test`, `x_unlabelled`, and `classes` (names in label order).

Images are (n, height, width) or (n, height, width, channels) uint8, anything else (n, …) numbers. Labels are whole
numbers from 0, or names.
"""

import functools
import hashlib
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EXIT_DATA, ConfigError
from common.samples import UNLABELLED, ArraySource, Labels, Source
from edge_client.data.pool import Pool
from edge_client.data.stored import Stored, StoredSource, of_npz_member

_PARTS = (("x", "y"), ("x_test", "y_test"), ("x_unlabelled", None))


def open_npz(path: Path) -> Pool:
    """The arrays of an npz.

    Raises:
        ConfigError: it cannot be read, or its arrays do not fit each other.
    """
    try:
        stat = path.stat()
        return _opened(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = error if isinstance(error, OSError) or zipfile.is_zipfile(path) else "it is no .npz"
        raise ConfigError(
            f"cannot read data {path}: {reason}; expected a folder with one sub-folder of images per class, or an .npz"
            " as numpy.savez writes it, with x and y",
            exit_code=EXIT_DATA,
        ) from error


@functools.lru_cache(maxsize=8)  # one source for all agents of the process
def _opened(path: Path, mtime_ns: int, size: int) -> Pool:
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # np.load leaves a broken one open
        given = set(file.files)
        labels = {y: file[y] for _, y in _PARTS if y in given}
        names = file["classes"] if "classes" in given else None
        missing = {"x", "y"} - given or {y for x, y in _PARTS if y and x in given} - given
        if missing:
            raise ConfigError(
                f"data {path} lack an array: expected x and y, got {', '.join(sorted(given))}", exit_code=EXIT_DATA
            )
        arrays = [(x, y) for x, y in _PARTS if x in given]
        stored = [of_npz_member(path, x) for x, _ in arrays]
        pieces = [piece for piece in stored if piece is not None]
        loaded = None if len(pieces) == len(arrays) else [file[x] for x, _ in arrays]
    lengths = [piece.n for piece in pieces] if loaded is None else [len(x) for x in loaded]
    for (x, y), n in zip(arrays, lengths, strict=True):
        if y is not None and labels[y].shape != (n,):
            raise ConfigError(
                f"data {path}: {y} must have one label for each of the {n} samples of {x}, got shape {labels[y].shape}",
                exit_code=EXIT_DATA,
            )
    classes, numbers = _labels(path, [labels[y] for _, y in arrays if y is not None], names)
    n_extra = lengths[-1] if "x_unlabelled" in given else 0
    joined = np.concatenate([*numbers, np.full(n_extra, UNLABELLED, np.int64)])
    digest = hashlib.sha256(f"{path.resolve()} {mtime_ns} {size}".encode()).hexdigest()
    source = _source(path, pieces, loaded, joined, digest)
    n_test = lengths[1] if "x_test" in given else None
    return Pool(path.stem, classes, source, lengths[0], n_test, n_extra)


def _source(
    path: Path, pieces: list[Stored], loaded: list[NDArray[np.generic]] | None, labels: Labels, digest: str
) -> Source:
    shapes = [(p.shape, p.dtype) for p in pieces] if loaded is None else [(x.shape[1:], x.dtype) for x in loaded]
    if len(set(shapes)) != 1:
        raise ConfigError(
            f"data {path}: x, x_test and x_unlabelled must have samples of one shape and type, "
            f"got {', '.join(f'{shape} {dtype}' for shape, dtype in shapes)}",
            exit_code=EXIT_DATA,
        )
    shape, dtype = shapes[0]
    if not (np.issubdtype(dtype, np.floating) or dtype == np.uint8) or len(shape) not in (1, 2, 3):
        raise ConfigError(
            f"data {path}: samples must be uint8 images (height, width[, channels]) or real vectors, "
            f"got shape {shape} of {dtype}",
            exit_code=EXIT_DATA,
        )
    if len(shape) == 2:
        shape = (*shape, 1)
    if loaded is not None:
        return ArraySource(np.concatenate(loaded).reshape(-1, *shape), labels, digest)
    return StoredSource(tuple(Stored(p.path, p.offset, p.n, shape, p.dtype) for p in pieces), labels, digest)


def _labels(
    path: Path, given: list[NDArray[np.generic]], names: NDArray[np.generic] | None
) -> tuple[tuple[str, ...], list[Labels]]:
    """Class names in label order, and each array of labels as numbers."""
    whole = np.concatenate(given)
    if whole.dtype.kind == "U":
        classes = tuple(sorted(set(whole.tolist()))) if names is None else tuple(str(n) for n in names)
        places = {name: i for i, name in enumerate(classes)}
        unknown = set(whole.tolist()) - set(classes)
        if unknown:
            raise ConfigError(
                f"data {path}: y has names that `classes` lacks: {', '.join(sorted(unknown))}", exit_code=EXIT_DATA
            )
        return classes, [np.array([places[str(n)] for n in y], np.int64) for y in given]
    if whole.dtype.kind not in "iu" or not len(whole) or whole.min() < 0:
        raise ConfigError(
            f"data {path}: labels must be whole numbers from 0, or names, at least one of them; "
            f"got {len(whole)} of {whole.dtype}",
            exit_code=EXIT_DATA,
        )
    n_classes = int(whole.max()) + 1
    classes = tuple(str(i) for i in range(n_classes)) if names is None else tuple(str(n) for n in names)
    if len(classes) < n_classes:
        raise ConfigError(
            f"data {path}: `classes` names {len(classes)} classes, but labels go up to {n_classes - 1}",
            exit_code=EXIT_DATA,
        )
    return classes, [y.astype(np.int64) for y in given]
