"""What somebody wants predicted: image files, folders of them, or the `x` of an npz."""

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EXIT_DATA, ConfigError
from common.models import shape_text
from common.samples import UNLABELLED, ArraySource, Samples, Source, view
from edge_client.data.folder import FolderSource, files_in


def open_inputs(paths: Sequence[Path], like: Source, shape: tuple[int, ...] | None) -> tuple[tuple[str, ...], Samples]:
    """A name for each sample, and the samples without labels, normalised as those of `like` are.

    `shape` is what the model takes; images get it, and the shape of `like` where the model takes any.

    Raises:
        ConfigError: one is missing, is no image, or has another shape.
    """
    one = like.read(np.zeros(1, np.int64))[0]
    wanted = shape if shape is not None and len(shape) == 3 else one.shape
    archives = [path for path in paths if path.suffix == ".npz"]
    if archives and len(paths) > 1:
        raise _unfit(f"an .npz goes alone, got {', '.join(map(str, paths))}")
    names, source = _of_npz(archives[0], wanted, one.dtype) if archives else _of_images(paths, wanted)
    return names, view(replace(source, mean=like.mean, std=like.std), 0)


def _of_images(paths: Sequence[Path], shape: tuple[int, ...]) -> tuple[tuple[str, ...], FolderSource]:
    if len(shape) != 3:
        raise _unfit(f"the run's samples are vectors of {shape_text(shape)}, no images: give an .npz with x")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise _unfit(f"{missing[0]} does not exist")
    files = [file for path in paths for file in (files_in(path) if path.is_dir() else [path])]
    if not files:
        raise _unfit(f"no images in {', '.join(map(str, paths))}")
    height, width, channels = shape
    source = FolderSource(tuple(files), np.full(len(files), UNLABELLED, np.int64), (height, width, channels))
    return tuple(map(str, files)), source


def _of_npz(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> tuple[tuple[str, ...], ArraySource]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            x: NDArray[np.generic] = file["x"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unfit(f"{path} cannot be read; expected an .npz as numpy.savez writes it, with x: {error}") from error
    if x.ndim == 3 and len(shape) == 3:
        x = x[..., None]  # grey images, as in training data
    if x.shape[1:] != shape or (x.dtype == np.uint8) != (dtype == np.uint8):
        raise _unfit(
            f"x in {path} must have samples as the agent's data: expected {shape_text(shape)} of {dtype}, "
            f"got {shape_text(x.shape[1:])} of {x.dtype}"
        )
    return tuple(f"{path}[{i}]" for i in range(len(x))), ArraySource(x, np.full(len(x), UNLABELLED, np.int64))


def _unfit(what: str) -> ConfigError:
    return ConfigError(f"cannot predict: {what}", exit_code=EXIT_DATA)
