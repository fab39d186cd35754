"""Image features of a frozen encoder as samples: made once, kept on disk, shared by all methods, runs and agents.

Nothing is augmented: an image has one view, as the encoder's own preprocessing makes it, so its features never change.
They are kept by (content of the image, image tower, preprocessing, kind of features); once all are there, the tower is
not loaded any more. EDGEFED_CACHE names the folder, else ~/.cache/edgefed.
"""

import functools
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common import encoders, models
from common.errors import EXIT_DATA, ConfigError
from common.method import ModelSpec
from common.samples import Labels, Samples, Source
from edge_client import image_tower
from edge_client.data.agent_data import AgentData
from edge_client.data.folder import unreadable
from edge_client.data.pool import file_of
from edge_client.feature_store import FeatureStore

if TYPE_CHECKING:
    from PIL import Image

BATCH = 16  # images through the tower at a time
DIGESTS = 1 << 16  # of files that a process remembers, some 20 MB


def encoded(data: AgentData, model: ModelSpec) -> AgentData:
    """The data as the model's encoder sees them; unchanged for models without one."""
    if not needs_features(model):
        return data
    source = feature_source(data.train.source, model)

    def over(view: Samples) -> Samples:
        return replace(view, source=source)

    extra = None if data.extra is None else over(data.extra)
    return replace(data, train=over(data.train), test=over(data.test), extra=extra)


def needs_features(model: ModelSpec) -> bool:
    return not models.is_dense(model.name) and hasattr(models.options_of(model), "encoder")


def feature_source(source: Source, model: ModelSpec) -> "FeatureSource":
    options = models.options_of(model)
    kind: image_tower.Kind = "dense" if options.features == "dense" else "global"
    return FeatureSource(source, options.encoder, kind, image_tower.cache_folder())


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """`common.samples.Source`: (k, dim) float32, or dense (k, rows, columns, dim) float16."""

    source: Source
    encoder: str
    kind: image_tower.Kind
    folder: Path

    @property
    def labels(self) -> Labels:
        return self.source.labels

    @property
    def mean(self) -> tuple[float, ...]:
        return ()

    @property
    def std(self) -> tuple[float, ...]:
        return ()

    @cached_property
    def digest(self) -> str:
        if not self.source.digest:
            return ""
        return hashlib.sha256(
            f"{self.source.digest} {self.kind} {encoders.tower_key(self.encoder)}".encode()
        ).hexdigest()

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        shape, dtype = self._layout()
        keys = [self._key(int(position)) for position in positions]
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            first.setdefault(key, place)
        store = FeatureStore(self.folder / f"{encoders.tower_key(self.encoder)[:32]}.sqlite", self.kind)
        found = store.get(set(first), int(np.prod(shape)) * dtype.itemsize)
        missing = [place for key, place in first.items() if key not in found]
        if not missing:
            image_tower.close()
        for places in _batches(missing):
            contents = [self._content(int(positions[i])) for i in places]
            rows = [row.tobytes() for row in self._encoded(contents, positions[places]).astype(dtype)]
            # by what was encoded: a file may have changed since it was looked at
            store.put({hashlib.sha256(c).digest(): row for c, row in zip(contents, rows, strict=True)})
            found.update(zip([keys[i] for i in places], rows, strict=True))
        whole = bytearray().join(found[key] for key in keys)
        return np.frombuffer(whole, dtype).reshape(len(keys), *shape)

    def _layout(self) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
        facts = encoders.facts(self.encoder)
        if self.kind == "global":
            return (facts.dim,), np.dtype(np.float32)
        return (*facts.map, facts.dim), np.dtype(np.float16)

    def _key(self, position: int) -> bytes:
        path = file_of(self.source, position)
        if path is None:
            return hashlib.sha256(self._content(position)).digest()
        try:
            return digest_of(path)
        except OSError as error:
            raise unreadable(path, error) from error

    def _content(self, position: int) -> bytes:
        path = file_of(self.source, position)
        if path is not None:
            try:
                return path.read_bytes()
            except OSError as error:
                raise unreadable(path, error) from error
        pixels = self._pixels(position)
        return b"%d %d %d " % pixels.shape + bytes(pixels.tobytes())

    def _pixels(self, position: int) -> NDArray[np.uint8]:
        pixels = self.source.read(np.array([position]))[0]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
            raise ConfigError(
                f"encoder {self.encoder!r} takes images, uint8 (height, width, 1 or 3), got samples of shape "
                f"{pixels.shape} of {pixels.dtype}",
                exit_code=EXIT_DATA,
            )
        return np.asarray(pixels, np.uint8)

    def _encoded(self, contents: list[bytes], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        how = encoders.preprocessing(self.encoder)
        images = [self._prepared(c, int(p), how) for c, p in zip(contents, positions, strict=True)]
        return image_tower.opened(self.encoder)(np.stack(images), self.kind)

    def _prepared(self, content: bytes, position: int, how: encoders.Preprocessing) -> NDArray[np.float32]:
        from PIL import Image

        path = file_of(self.source, position)
        if path is None:
            pixels = self._pixels(position)
            return preprocessed(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), how)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return preprocessed(image, how)
        except OSError as error:
            raise unreadable(path, error) from error


def preprocessed(image: "Image.Image", how: encoders.Preprocessing) -> NDArray[np.float32]:
    """(3, crop, crop): shorter side to `resize`, centre cut out, scaled, normalised."""
    from PIL import Image, ImageOps

    rgb = image.convert("RGB")
    shorter = min(rgb.size)
    width, height = (max(how.resize, side * how.resize // shorter) for side in rgb.size)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling(how.resample))
    left, top = (width - how.crop) // 2, (height - how.crop) // 2
    if left < 0 or top < 0:
        rgb = ImageOps.pad(rgb, (max(width, how.crop), max(height, how.crop)))
        left, top = (rgb.width - how.crop) // 2, (rgb.height - how.crop) // 2
    pixels = np.asarray(rgb.crop((left, top, left + how.crop, top + how.crop)), np.float32) / np.float32(255)
    scaled = (pixels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file; one that is as it was is not read again by this process."""
    now = path.stat()
    return _digest(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@functools.lru_cache(maxsize=DIGESTS)
def _digest(path: Path, *_as_it_is: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _batches(places: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), BATCH):
        yield places[start : start + BATCH]
