"""A tree of images, one folder per class (ImageFolder's layout): `train/` and `test/` (or `val/`), or one tree.

`unlabelled/` beside them may hold images without classes. Files are looked at once (their headers), and decoded only
when a task asks for them, in the size and with the channels that the run's model takes. Files that are no readable
images are left out and counted; many are an error.
"""

import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EXIT_DATA, ConfigError
from common.samples import UNLABELLED, Labels
from edge_client.data.pool import Pool

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_UNREADABLE = 0.05  # share of a tree's files
GREY = frozenset({"1", "L", "I", "I;16", "LA"})


@dataclass(frozen=True)
class _Image:
    path: Path
    label: int
    size: tuple[int, int]  # width, height
    is_grey: bool


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files, decoded when read; one of another shape is scaled to fill it and its edges cut off evenly."""

    paths: tuple[Path, ...]
    labels: Labels
    shape: tuple[int, int, int]  # height, width, channels
    digest: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        out = np.empty((len(positions), *self.shape), np.uint8)
        for place, position in enumerate(positions):
            out[place] = _decoded(self.paths[position], self.shape)
        return out

    def file(self, position: int) -> Path:
        return self.paths[position]


def open_folder(root: Path, shape: tuple[int, ...] | None = None) -> Pool:
    """The images of a tree; classes are the names of its folders in alphabetical order.

    Args:
        root: the tree.
        shape: (height, width, channels) to give the images; None, or another rank: that of the first image.

    Raises:
        ConfigError: no images, or too many unreadable files.
    """
    if not root.is_dir():
        raise ConfigError(f"data folder {root} does not exist", exit_code=EXIT_DATA)
    try:
        return _opened(root, _stamp(root), shape)
    except OSError as error:
        raise ConfigError(f"cannot read data folder {root}: {error}", exit_code=EXIT_DATA) from error


@functools.lru_cache(maxsize=64)
def _opened(root: Path, stamp: tuple[int, ...], shape: tuple[int, ...] | None) -> Pool:
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    is_split = test is not None and (root / "train").is_dir()
    trees = [root / "train", test] if is_split and test is not None else [root]
    classes = tuple(sorted({c.name for tree in trees for c in _folders(tree) if is_split or c.name != "unlabelled"}))
    found: list[_Image] = []
    sizes: list[int] = []
    bad: list[Path] = []
    unlabelled = [(path, UNLABELLED) for path in files_in(root / "unlabelled")]
    for files in [*(_labelled(tree, classes) for tree in trees), unlabelled]:
        before = len(found)
        for path, label in files:
            image = _looked_at(path, label)
            if image is None:
                bad.append(path)
            else:
                found.append(image)
        sizes.append(len(found) - before)
    _refuse(root, found, bad)
    height, width, channels = shape if shape is not None and len(shape) == 3 else _shape(found)
    source = FolderSource(
        tuple(image.path for image in found),
        np.array([image.label for image in found], np.int64),
        (height, width, channels),
        _digest(root, found),
    )
    return Pool(root.name, classes, source, sizes[0], sizes[1] if is_split else None, sizes[-1])


def _shape(found: list[_Image]) -> tuple[int, int, int]:
    width, height = found[0].size
    return height, width, 1 if all(image.is_grey for image in found) else 3


def _refuse(root: Path, found: list[_Image], bad: list[Path]) -> None:
    if not any(image.label != UNLABELLED for image in found) and not bad:
        raise ConfigError(
            f"no images in {root}: expected one folder per class with files such as name.jpg or name.png",
            exit_code=EXIT_DATA,
        )
    if len(bad) > MAX_UNREADABLE * (len(found) + len(bad)):
        raise ConfigError(
            f"{len(bad)} of {len(found) + len(bad)} images in {root} cannot be read, the first is {bad[0]}; "
            f"replace or remove them",
            exit_code=EXIT_DATA,
        )
    if bad:
        n = len(found) + len(bad)
        logger.warning("images left out folder=%s unreadable=%d of=%d first=%s", root, len(bad), n, bad[0])


def _folders(tree: Path) -> list[Path]:
    return sorted(path for path in tree.iterdir() if path.is_dir() and not path.name.startswith("."))


def _labelled(tree: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    return [(path, classes.index(c.name)) for c in _folders(tree) if c.name in classes for path in files_in(c)]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _stamp(root: Path) -> tuple[int, ...]:
    """Changes when files come or go in the tree's folders, so that a later run sees them."""
    folders = [root, *_folders(root), *(inner for folder in _folders(root) for inner in _folders(folder))]
    return tuple(folder.stat().st_mtime_ns for folder in folders)


def _looked_at(path: Path, label: int) -> _Image | None:
    from PIL import Image, UnidentifiedImageError  # loads at first use, not when an agent starts

    try:
        with Image.open(path) as image:
            return _Image(path, label, image.size, image.mode in GREY)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _decoded(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    height, width, channels = shape
    try:
        with Image.open(path) as image:
            pixels = image.convert("L" if channels == 1 else "RGB")
            if pixels.size != (width, height):
                pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BILINEAR)
            return np.asarray(pixels, np.uint8).reshape(shape)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"image {path} cannot be read: {error}; replace or remove it", exit_code=EXIT_DATA)


def _digest(root: Path, found: list[_Image]) -> str:
    """Names and sizes of the files: content is not read for it."""
    text = "\n".join(f"{image.path.relative_to(root)} {image.path.stat().st_size}" for image in found)
    return hashlib.sha256(text.encode()).hexdigest()
