"""Data sets by name, read from their official files under EDGEFED_DATA; what is not there, torchvision downloads.

One source per data set and process: a fleet of a hundred agents shares it, and samples stay in their files. A folder
of images or an npz of that name under EDGEFED_DATA is a named data set too. `digits` comes with scikit-learn.
"""

import functools
import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data_files import FOLDER_VARIABLE, data_folder
from common.errors import EXIT_DATA, ConfigError, UnknownName
from common.samples import ArraySource, Labels
from edge_client.data import cifar, tiny_imagenet
from edge_client.data.archive import open_npz
from edge_client.data.folder import open_folder
from edge_client.data.pool import Pool
from edge_client.data.split_file import open_split, split_in
from edge_client.data.stored import Stored, StoredSource

NUMERALS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class _Idx:
    """A data set in MNIST's file format. Mean and std are of the training pixels / 255."""

    folder: str
    classes: tuple[str, ...]
    mean: float
    std: float


_IDX = {
    "mnist": _Idx("MNIST", NUMERALS, 0.1307, 0.3015),
    "fashion_mnist": _Idx("FashionMNIST", CLOTHES, 0.286, 0.3205),
}
_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def open_named(name: str, shape: tuple[int, ...] | None = None) -> Pool:
    """The data set of that name; `shape` is that of samples, for image files, which can be scaled.

    Raises:
        UnknownName: no such data set is known, and no folder or npz of that name is there.
        ConfigError: its files are missing or broken.
    """
    root = data_folder()
    if name in _READERS:
        return _opened(name, root)
    if name == tiny_imagenet.NAME:
        return _tiny_imagenet(root, shape[0] if shape is not None and len(shape) == 3 else tiny_imagenet.SIDE)
    if Path(name).name == name and (root / name).is_dir():
        split = split_in(root / name)
        return open_folder(root / name, shape) if split is None else open_split(split, shape)
    if Path(name).name == name and (root / f"{name}.npz").is_file():
        return open_npz(root / f"{name}.npz")
    there = [path.stem for path in root.iterdir() if path.is_dir() or path.suffix == ".npz"] if root.is_dir() else []
    raise UnknownName("data set", name, {*_READERS, tiny_imagenet.NAME, *there})


def coarse_edges(name: str) -> tuple[tuple[str, str], ...]:
    """The taxonomy that a data set's own coarse labels make.

    Raises:
        ConfigError: it has none, or they cannot be read.
    """
    if name != "cifar100":
        raise ConfigError(
            f"[data] taxonomy = 'coarse': of the data sets only 'cifar100' has coarse labels, not {name!r}"
        )
    try:
        open_named(name)  # which downloads it where it is missing
        return cifar.coarse(data_folder())
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"coarse labels of {name!r} cannot be read: {error}", exit_code=EXIT_DATA) from error


@functools.lru_cache(maxsize=16)
def _opened(name: str, root: Path) -> Pool:
    try:
        try:
            return _READERS[name](name, root)
        except FileNotFoundError as missing:
            _download(name, root, missing)
            return _READERS[name](name, root)
    except (OSError, ValueError) as error:
        raise ConfigError(f"data set {name!r} in {root} cannot be read: {error}", exit_code=EXIT_DATA) from error


@functools.lru_cache(maxsize=4)
def _tiny_imagenet(root: Path, side: int) -> Pool:
    try:
        return tiny_imagenet.read(root, side)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"data set {tiny_imagenet.NAME!r} in {root} cannot be read: {error}; unpack its official archive there, or"
            f" set {FOLDER_VARIABLE} to the folder that has it",
            exit_code=EXIT_DATA,
        ) from error


def _download(name: str, root: Path, missing: FileNotFoundError) -> None:
    how = f"put its official files there, or set {FOLDER_VARIABLE} to the folder that has them"
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise ConfigError(
            f"data set {name!r} is not in {root} ({missing.filename} is missing) and torchvision, which would download "
            f"it, is not installed; {how}",
            exit_code=EXIT_DATA,
        ) from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(datasets, _TORCHVISION[name])(str(root), download=True)
    except (OSError, RuntimeError) as error:  # what torchvision raises when every mirror fails
        raise ConfigError(
            f"data set {name!r} is not in {root} and could not be downloaded: {error}; {how}", exit_code=EXIT_DATA
        ) from error


def _digits(name: str, root: Path) -> Pool:
    try:
        load = importlib.import_module("sklearn.datasets").load_digits
    except ImportError as error:
        raise ConfigError(
            "data set 'digits' comes with scikit-learn, which is not installed: install edgefed[bench]",
            exit_code=EXIT_DATA,
        ) from error
    x, y = load(return_X_y=True)
    pixels = np.round(x * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)  # 17 grey levels
    n_test = len(y) // 5
    source = ArraySource(pixels, y.astype(np.int64), "digits", mean=(0.305,), std=(0.376,))
    return Pool(name, NUMERALS, source, len(y) - n_test, n_test)


def _idx(name: str, root: Path) -> Pool:
    about = _IDX[name]
    raw = root / about.folder / "raw"
    pieces, labels = [], []
    for part in ("train", "t10k"):
        pieces.append(_idx_images(raw / f"{part}-images-idx3-ubyte"))
        labels.append(_idx_labels(raw / f"{part}-labels-idx1-ubyte", pieces[-1].n))
    joined = np.concatenate(labels)
    digest = hashlib.sha256(name.encode() + joined.tobytes()).hexdigest()
    source = StoredSource(tuple(pieces), joined, digest, (about.mean,), (about.std,))
    return Pool(name, about.classes, source, pieces[0].n, pieces[1].n)


def _idx_images(path: Path) -> Stored:
    with path.open("rb") as file:
        head = np.frombuffer(file.read(16), ">u4")
    if len(head) != 4 or head[0] != 0x803 or path.stat().st_size != 16 + int(np.prod(head[1:].astype(np.int64))):
        raise ValueError(f"{path} is no complete idx3 file of unsigned bytes")
    n, height, width = (int(size) for size in head[1:])
    return Stored(path, 16, n, (height, width, 1), np.dtype(np.uint8))


def _idx_labels(path: Path, n: int) -> Labels:
    data = path.read_bytes()
    if len(data) != 8 + n or int.from_bytes(data[:4], "big") != 0x801:
        raise ValueError(f"{path} is no complete idx1 file of {n} unsigned bytes")
    return np.frombuffer(data, np.uint8, offset=8).astype(np.int64)


_READERS: Mapping[str, Callable[[str, Path], Pool]] = {
    "digits": _digits,
    "mnist": _idx,
    "fashion_mnist": _idx,
    "cifar10": cifar.read,
    "cifar100": cifar.read,
}
