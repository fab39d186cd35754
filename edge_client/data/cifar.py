"""CIFAR-10 and CIFAR-100 from their official files, which are Python pickles.

The pickles are read by an unpickler that knows nothing but numpy arrays, once: the images are then kept beside them
as an .npy file, from which samples are read by position.
"""

import hashlib
import io
import os
import pickle  # noqa: TID251 - the data sets' official format; only numpy's array constructors may be called
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import files
from common.samples import ArraySource, Source
from edge_client.data.pool import Pool
from edge_client.data.stored import StoredSource, of_npy


@dataclass(frozen=True)
class _Cifar:
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_CIFAR = {
    "cifar10": _Cifar(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "batches.meta",
        "labels",
        "label_names",
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
    ),
    "cifar100": _Cifar(
        "cifar-100-python",
        ("train",),
        "test",
        "meta",
        "fine_labels",
        "fine_label_names",
        # std as in use for federated benchmarks of it: of pixels within an image, averaged over the images
        (0.5071, 0.4865, 0.4409),
        (0.2009, 0.1984, 0.2023),
    ),
}
_KNOWN = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),  # how bytes travel in protocol 2
}


def read(name: str, root: Path) -> Pool:
    """The data set from its official files under `root`."""
    about = _CIFAR[name]
    folder = root / about.folder
    classes = tuple(_text(c) for c in _unpickled(folder / about.meta)[about.names])
    batches = [_unpickled(folder / batch) for batch in (*about.train, about.test)]
    labels = np.concatenate([np.asarray(batch[about.labels], np.int64) for batch in batches])
    n_test = len(batches[-1][about.labels])
    digest = hashlib.sha256(name.encode() + labels.tobytes()).hexdigest()
    kept = folder / f"edgefed-{digest[:16]}.npy"
    if not kept.is_file() and os.access(folder, os.W_OK):
        _keep(_images(batches), kept)
    source: Source
    if kept.is_file():
        source = StoredSource((of_npy(kept),), labels, digest, about.mean, about.std)
    else:  # a folder that we may not write to: the images stay in memory
        source = ArraySource(_images(batches), labels, digest, about.mean, about.std)
    return Pool(name, classes, source, len(labels) - n_test, n_test)


def coarse(root: Path) -> tuple[tuple[str, str], ...]:
    """CIFAR-100's taxonomy as (parent, child) edges: root, its 20 coarse classes, and five classes under each.

    Which class belongs where is read from the labels themselves: every image carries both.
    """
    about = _CIFAR["cifar100"]
    meta, train = (_unpickled(root / about.folder / name) for name in (about.meta, "train"))
    pairs = sorted(set(zip(train["fine_labels"], train["coarse_labels"], strict=True)))
    fine, upper = ([_text(c) for c in meta[key]] for key in (about.names, "coarse_label_names"))
    if [label for label, _ in pairs] != list(range(len(fine))):
        raise ValueError(f"the coarse labels of {root / about.folder} are no function of the classes")
    edges = [("root", name) for name in upper]
    return (*edges, *((upper[above], fine[label]) for label, above in pairs))


def _images(batches: list[dict[str, Any]]) -> NDArray[np.uint8]:
    flat = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # to (n, height, width, channels)


def _keep(images: NDArray[np.uint8], path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
    files.write_at_once(path, [header.getvalue(), images.data.cast("B")])


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise ValueError(f"a pickle of a data set must hold arrays only, this one asks for {module}.{name}")
        return super().find_class(module, name)


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        found = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} is no complete pickle: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no dictionary")
    return found


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
