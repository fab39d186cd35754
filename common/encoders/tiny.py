"""A tiny random dual encoder, the same wherever it is made: for tests and for trying a run file out."""

import zlib
from typing import Any

import numpy as np

from common.encoders import Facts, Preprocessing

FACTS = Facts(dim=16, width=12, n_positions=32, map=(2, 2))
SIDE, PATCH, WORDS = 8, 4, 500
START, END = 0, WORDS + 1


def facts(name: str) -> Facts:
    return FACTS


def preprocessing(name: str) -> Preprocessing:
    return Preprocessing(SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def load(name: str, device: str = "cpu") -> "Tiny":
    return Tiny(device)


class Tiny:
    """`common.encoders.Encoder`: one causal attention block; patches through one matrix."""

    facts = FACTS
    logit_scale = 10.0
    is_causal = True

    def __init__(self, device: str) -> None:
        from common.encoders import _tiny_modules  # it needs torch when it is imported

        text, image = _tiny_modules.towers(FACTS, END + 1, PATCH)
        self._text, self._image, self._device = text.to(device), image.to(device), device

    def tokens(self, texts: list[str], length: int | None = None) -> Any:
        import torch

        rows = [[START, *(_id(word) for word in text.replace(".", " .").split()), END] for text in texts]
        longest = max(map(len, rows)) if length is None else length
        return torch.tensor([row + [END] * (longest - len(row)) for row in rows], device=self._device)

    def ends(self, ids: Any) -> Any:
        return ids.argmax(dim=-1)

    def embedded(self, ids: Any) -> Any:
        return self._text.embedded(ids)

    def text_features(self, embedded: Any, ends: Any) -> Any:
        return self._text(embedded, ends)

    def image_tower(self) -> Any:
        return self._image


def draw(shape: tuple[int, ...], seed: int) -> Any:
    """float32 numbers of standard deviation 1 / sqrt(fan-in)."""
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])
    return values.astype(np.float32)


def _id(word: str) -> int:
    return 1 + zlib.crc32(word.lower().encode()) % WORDS
