"""The result of a run as files that need nothing of ours to be read: arrays as .npz, anything else as it is."""

import mimetypes
import mmap
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from common import files, pb
from common.errors import RemoteFault
from common.payloads import Array, Blob, Mask, Payload, Prompt, Prototypes, Sparse, Weights
from common.wire import canonical
from common.wire.limits import OWN

ENDINGS = {"application/onnx": ".onnx", "application/x-onnx": ".onnx"}


def write(parts: Iterable[pb.ExportPart], folder: Path) -> Iterator[tuple[str, Path]]:
    """Write each payload as it is complete; its name and its file. The folder is made when the first one comes."""
    parts = iter(parts)
    for first in parts:
        folder.mkdir(parents=True, exist_ok=True)
        arriving = files.temporary_beside(folder / "export")
        try:
            _spool(first, parts, arriving)
            yield first.name, write_payload(first.name, _decoded(arriving, first.name), folder)
        finally:
            arriving.unlink(missing_ok=True)


def _spool(first: pb.ExportPart, parts: Iterator[pb.ExportPart], arriving: Path) -> None:
    part: pb.ExportPart | None = first
    with arriving.open("wb") as out:
        while part is not None:
            out.write(part.data)
            if part.last:
                return
            part = next(parts, None)
    raise RemoteFault(f"export of {first.name} ended in the middle; ask again")


def write_payload(name: str, payload: object, folder: Path) -> Path:
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "result"
    if isinstance(payload, Blob):
        ending = ENDINGS.get(payload.media_type) or mimetypes.guess_extension(payload.media_type) or ".bin"
        path = folder / f"{stem}{ending}"
        files.write_at_once(path, [payload.data])
        return path
    path = folder / f"{stem}.npz"
    write_npz(path, arrays_of(payload))
    return path


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """An .npz, whole or not at all."""
    temporary = files.temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            _savez(file, arrays)
        files.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _savez(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """np.savez for any name: that one has a parameter called `file`."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def arrays_of(payload: object) -> dict[str, Array]:
    """What a payload is, as named arrays: weights and masks under their own names."""
    match payload:
        case canonical.Expert(node, weights):
            return {f"{node}/{name}": array for name, array in weights.items()}
        case Weights():
            return dict(payload)
        case Prompt(context):
            return {"context": context}
        case Prototypes(class_ids, counts, vectors):
            return {"class_ids": class_ids, "counts": counts, "vectors": vectors}
        case Mask(bits):
            return dict(bits)
        case Sparse(tensors):
            return {
                f"{name}.{part}": array
                for name, entries in tensors.items()
                for part, array in (
                    ("shape", np.array(entries.shape, dtype=np.int64)),
                    ("indices", entries.indices),
                    ("values", entries.values),
                )
            }
        case _:
            raise RemoteFault(f"export: a payload of a type that this build does not know, {type(payload).__name__}")


def _decoded(path: Path, name: str) -> object:
    with path.open("rb") as file:
        try:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise RemoteFault(f"export of {name}: no bytes came") from error
    payload: Payload | canonical.Expert = canonical.decode(buffer, limits=OWN, where=f"export of {name}")
    return payload
