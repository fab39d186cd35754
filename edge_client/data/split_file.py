"""CoOp's split files: which image files are for training, validation and test, with label and class name.

    {"train": [["accordion/image_0001.jpg", 0, "accordion"], …], "val": […], "test": […]}

The images are looked for in the file's folder and the folders in it (`101_ObjectCategories`, `images`). Validation
images are not used, as in the few-shot benchmarks.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import EXIT_DATA, ConfigError
from edge_client.data.folder import FolderSource
from edge_client.data.pool import Pool

PATTERN = "split_*.json"
MAX_MISSING = 0.05  # share of the files


def split_in(folder: Path) -> Path | None:
    """The split file of a folder; None when there is none."""
    found = sorted(folder.glob(PATTERN))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"data {folder} have {len(found)} split files, keep one: {names}", exit_code=EXIT_DATA)
    return found[0] if found else None


def open_split(path: Path, shape: tuple[int, ...] | None = None) -> Pool:
    """The images that the file names, decoded in `shape`.

    Raises:
        ConfigError: it is no split file, or the images are not there.
    """
    try:
        stat = path.stat()
        return _opened(path, stat.st_mtime_ns, shape)
    except OSError as error:
        raise ConfigError(f"cannot read data {path}: {error}", exit_code=EXIT_DATA) from error


@functools.lru_cache(maxsize=8)
def _opened(path: Path, mtime_ns: int, shape: tuple[int, ...] | None) -> Pool:
    train, test = _rows(path)
    rows = train + test
    names = {label: name for _, label, name in rows}
    if sorted(names) != list(range(len(names))):
        raise ConfigError(f"data {path}: labels must be 0, 1, … without gaps, got {sorted(names)[:8]}")
    root = _root(path, rows)
    there = [(root / file).is_file() for file, _, _ in rows]
    n_missing = there.count(False)
    if n_missing > MAX_MISSING * len(rows):
        first = rows[there.index(False)][0]
        raise ConfigError(
            f"{n_missing} of the {len(rows)} images that {path} names are not under {root}, the first is {first}",
            exit_code=EXIT_DATA,
        )
    kept = [row for row, is_there in zip(rows, there, strict=True) if is_there]
    n_train = sum(there[: len(train)])
    labels = np.array([label for _, label, _ in kept], np.int64)
    digest = hashlib.sha256(f"{path.resolve()} {mtime_ns}".encode()).hexdigest()
    size = shape if shape is not None and len(shape) == 3 else (224, 224, 3)
    source = FolderSource(tuple(root / file for file, _, _ in kept), labels, (size[0], size[1], size[2]), digest)
    classes = tuple(names[label] for label in range(len(names)))
    return Pool(path.parent.name, classes, source, n_train, len(kept) - n_train)


def _rows(path: Path) -> tuple[list[tuple[str, int, str]], list[tuple[str, int, str]]]:
    try:
        given: Any = json.loads(path.read_text(encoding="utf-8"))
        parts = [
            [(str(file), int(label), str(name)) for file, label, name in given[part]] for part in ("train", "test")
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"data {path} are no CoOp split: expected train and test, lists of [file, label, class name]; {error!r}",
            exit_code=EXIT_DATA,
        ) from error
    if not parts[0]:
        raise ConfigError(f"data {path} name no training images", exit_code=EXIT_DATA)
    return parts[0], parts[1]


def _root(path: Path, rows: list[tuple[str, int, str]]) -> Path:
    """The folder under which the first of the images lie."""
    places = [path.parent, *sorted(place for place in path.parent.iterdir() if place.is_dir())]
    for place in places:
        if any((place / file).is_file() for file, _, _ in rows[:20]):
            return place
    raise ConfigError(
        f"the images that {path} names are neither beside it nor in a folder there, the first is {rows[0][0]}; place "
        f"the data set's images there",
        exit_code=EXIT_DATA,
    )
