"""Frozen dual encoders of images and texts, by name, behind one narrow interface; nothing here imports torch.

A name is a folder, a folder under EDGEFED_MODELS, a repository of the Hugging Face hub ("owner/name"), or "tiny": a
random one for tests. A folder's config.json says who reads it: `hugging_face` (CLIPModel, VisionTextDualEncoderModel).
Whoever reads another kind (open_clip, say) is one more file here with `facts` and `load`, and a line in `_reader`.

Shapes and preprocessing come from the configuration alone, so that a server needs no weights.
"""

import functools
import hashlib
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from common.errors import EXIT_DATA, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_VARIABLE = "EDGEFED_MODELS"
CONFIG = "config.json"
PREPROCESSING = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = ("tokenizer.json", "vocab.json")
PLACE = (
    f"place {CONFIG}, {PREPROCESSING}, {WEIGHTS} and tokenizer.json (or vocab.json and merges.txt) in a folder, and "
    f"give its path, or its name under {FOLDER_VARIABLE}"
)


@dataclass(frozen=True)
class Facts:
    """What is known without weights. `map`: rows and columns of the dense features of one image."""

    dim: int  # of image and text features
    width: int  # of token embeddings
    n_positions: int  # of a text, with its start and its end
    map: tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """The shorter side to `resize` pixels, the centre `crop` square cut out, (x / 255 - mean) / std."""

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int = 3  # Pillow's number: bicubic


class Encoder(Protocol):
    """Frozen, float32, in evaluation. Features are not normalised."""

    facts: Facts
    logit_scale: float  # as it multiplies cosines
    is_causal: bool  # what follows a text's end changes nothing of its features

    def tokens(self, texts: list[str], length: int | None = None) -> "Tensor":
        """(n, longest) token ids from start to end, or (n, length), filled up behind the end; on the device."""
        ...

    def ends(self, ids: "Tensor") -> "Tensor":
        """(n,): where each text's end token stands."""
        ...

    def embedded(self, ids: "Tensor") -> "Tensor":
        """Token embeddings without positions, (n, length, width)."""
        ...

    def text_features(self, embedded: "Tensor", ends: "Tensor") -> "Tensor":
        """(n, dim), of token embeddings; gradients pass through."""
        ...

    def image_tower(self) -> Any:
        """nn.Module: pixels (n, 3, crop, crop) -> global features (n, dim), dense ones (n, rows, columns, dim)."""
        ...


def facts(name: str) -> Facts:
    """Shapes, from the configuration.

    Raises:
        ConfigError: there is no such encoder, or this build cannot read it.
    """
    return cast(Facts, _reader(name).facts(name))


def preprocessing(name: str) -> Preprocessing:
    return cast(Preprocessing, _reader(name).preprocessing(name))


@functools.lru_cache(maxsize=2)
def load(name: str, device: str = "cpu") -> Encoder:
    """The encoder with its weights on a device of torch's; needs torch. Loaded once in a process.

    Raises:
        ConfigError: a file is missing, or a library.
    """
    return cast(Encoder, _reader(name).load(name, device))


@functools.lru_cache(maxsize=8)
def tower_key(name: str) -> str:
    """Names the image tower's content and preprocessing: files of equal bytes have equal features."""
    if name == "tiny":
        return hashlib.sha256(b"tiny encoder 1").hexdigest()
    place = folder(name)
    check_files(place, (CONFIG, WEIGHTS))
    digest = hashlib.sha256()
    for file in (CONFIG, PREPROCESSING, WEIGHTS):
        if (place / file).is_file():
            with (place / file).open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def folder(name: str, *, config_only: bool = False) -> Path:
    """Where its files are; from the hub, where they have been downloaded to.

    Raises:
        ConfigError: nowhere.
    """
    for place in (Path(name), Path(os.environ.get(FOLDER_VARIABLE) or ".") / name):
        if place.is_dir():
            return place
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ConfigError(
            f"no encoder {name!r}: it is no folder here, nor one under {FOLDER_VARIABLE}="
            f"{os.environ.get(FOLDER_VARIABLE, '')!r}; {PLACE}",
            exit_code=EXIT_DATA,
        )
    return _from_hub(name, (CONFIG,) if config_only else (CONFIG, PREPROCESSING, WEIGHTS, "*.txt", "token*", "vocab*"))


def check_files(place: Path, wanted: tuple[str, ...]) -> None:
    missing = [file for file in wanted if not (place / file).is_file()]
    if missing:
        raise ConfigError(f"encoder {place} lacks {', '.join(missing)}; {PLACE}", exit_code=EXIT_DATA)


def configuration(name: str) -> dict[str, Any]:  # Any: JSON
    place = folder(name, config_only=True)
    check_files(place, (CONFIG,))
    return read_json(place / CONFIG)


def read_json(path: Path) -> dict[str, Any]:  # Any: JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"encoder file {path} cannot be read: {error}", exit_code=EXIT_DATA) from error
    if not isinstance(found, dict):
        raise ConfigError(f"encoder file {path} must hold a JSON object, got {type(found).__name__}")
    return found


def _reader(name: str) -> Any:  # Any: a module with facts, preprocessing and load
    return importlib.import_module(f"common.encoders.{'tiny' if name == 'tiny' else 'hugging_face'}")


def _from_hub(name: str, files: tuple[str, ...]) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ConfigError(
            f"encoder {name!r} is no folder here, and to fetch it from the hub needs edgefed[prompts]; {PLACE}"
        ) from error
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(files)))
    except (OSError, ValueError, RuntimeError) as error:  # what it raises without a network, or for unknown names
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"encoder {name!r} is no folder here and cannot be fetched from the hub: {first}; {PLACE}",
            exit_code=EXIT_DATA,
        ) from error
