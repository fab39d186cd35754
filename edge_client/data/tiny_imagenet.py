"""Tiny ImageNet (Le and Yang, 2015) from its official folder: 200 classes of 64-pixel images, named by WordNet ids.

The JPEG files are decoded once, scaled down where a run's model takes smaller images, and kept beside them as an .npy
file, from which samples are read by position. The labelled validation images are the test part.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common import files
from edge_client.data.pool import Pool
from edge_client.data.stored import StoredSource, of_npy

NAME = "tiny_imagenet"
SIDE = 64
MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)  # of the training pixels / 255


def read(root: Path, side: int = SIDE) -> Pool:
    """The data set with images of side x side pixels, however many images the folder has of it."""
    folder = root / "tiny-imagenet-200"
    classes = tuple(sorted((folder / "wnids.txt").read_text(encoding="utf-8").split()))
    train = [(p, label) for label, c in enumerate(classes) for p in sorted((folder / "train" / c).rglob("*.JPEG"))]
    test = _validation(folder, classes)
    if not train or not test:
        raise ValueError(f"{folder} lacks train/*/images/*.JPEG, or val/images/*.JPEG with val_annotations.txt")
    labels = np.array([label for _, label in (*train, *test)], np.int64)
    digest = hashlib.sha256(f"{NAME} {side} {len(train)}".encode() + labels.tobytes()).hexdigest()
    kept = folder / f"edgefed-{side}-{digest[:16]}.npy"
    if not kept.is_file():
        files.write_at_once(kept, _pixels([path for path, _ in (*train, *test)], side))
    return Pool(NAME, classes, StoredSource((of_npy(kept),), labels, digest, MEAN, STD), len(train), len(test))


def _validation(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    place = {name: label for label, name in enumerate(classes)}
    lines = (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("\t")[:2] for line in lines if line]
    images = ((folder / "val" / "images" / name, place[wnid]) for name, wnid in found)
    return [(path, label) for path, label in images if path.is_file()]


def _pixels(paths: list[Path], side: int) -> Iterator[bytes]:
    """An .npy file piece by piece: its header, then one image after the other."""
    from PIL import Image  # loads at first use, not when an agent starts

    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), side, side, 3)}
    np.lib.format.write_array_header_1_0(header, shape)
    yield header.getvalue()
    for path in paths:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
            yield (
                pixels if pixels.size == (side, side) else pixels.resize((side, side), Image.Resampling.BOX)
            ).tobytes()
