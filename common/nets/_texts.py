"""Class names behind prompts as a frozen text tower takes them, and their features, kept while nothing is trained."""

import functools
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch.nn import functional as F

from common import class_texts, encoders
from common.encoders import Encoder
from common.errors import ConfigError

KEPT = 16  # sets of text features, of the latest prompts: agents of one process share the common ones
FILLER = "x"  # what a prompt of placeholder words is made of


@functools.lru_cache(maxsize=8)
def texts_of(
    encoder: str, data: str, template: str, classes: tuple[str, ...], n_context: int, precision: str, device: str
) -> "Texts":
    """Made once in a process for each class list."""
    texts = class_texts.of(data, template)
    return Texts(encoders.load(encoder, device), texts, classes, n_context, half=precision != "float32")


class Spliced:
    """Texts of one class each as embeddings, with room for M vectors behind the start token.

    They are cut behind the longest one's end when the tower is causal, because what follows an end then changes
    nothing of it; for other towers they have all positions.
    """

    def __init__(self, encoder: Encoder, texts: list[str], n_context: int) -> None:
        room = encoder.facts.n_positions - n_context
        ids = encoder.tokens(texts)
        if ids.shape[1] > room:
            raise ConfigError(
                f"a context of {n_context} vectors leaves {room} of the encoder's {encoder.facts.n_positions} "
                f"positions for a class name, and the longest takes {ids.shape[1]}; lower [model] context"
            )
        if not encoder.is_causal:
            ids = encoder.tokens(texts, room)
        embedded = encoder.embedded(ids)
        self.start, self.rest = embedded[:, :1], embedded[:, 1:]  # (classes, 1, width), (classes, length - 1, width)
        self.ends = encoder.ends(ids) + n_context

    def behind(self, prompts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(prompts * classes, length, width) and where each ends."""
        if prompts is None:
            return torch.cat([self.start, self.rest], 1), self.ends
        n, k = len(prompts), len(self.start)
        middle = prompts[:, None].expand(-1, k, -1, -1)
        whole = torch.cat([self.start.expand(n, -1, -1, -1), middle, self.rest.expand(n, -1, -1, -1)], 2)
        return whole.flatten(0, 1), self.ends.repeat(n)


class Texts:
    """One class list in one encoder; features are unit vectors, (prompts, classes, dim)."""

    def __init__(
        self,
        encoder: Encoder,
        texts: class_texts.ClassTexts,
        classes: tuple[str, ...],
        n_context: int,
        *,
        half: bool = False,
    ) -> None:
        self.scale = encoder.logit_scale
        self._encoder, self._half, self._n_classes = encoder, half, len(classes)
        filler = " ".join([FILLER] * n_context)
        self._names = Spliced(encoder, [f"{texts.name(c)}." for c in classes], n_context)
        self._template = Spliced(encoder, [texts.sentence(c) for c in classes], 0)
        self._filled = Spliced(encoder, [f"{filler} {texts.name(c)}." for c in classes], 0)
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def features(self, prompts: torch.Tensor | None) -> torch.Tensor:
        """Of prompts (n, M, width) before the names; None: of the template. Gradients reach the prompts."""
        if prompts is None:
            return self._remembered(b"template", lambda: self._encoded(self._template, None))
        if prompts.requires_grad:
            return self._encoded(self._names, prompts)
        return self._remembered(prompts.cpu().numpy().tobytes(), lambda: self._encoded(self._names, prompts))

    def placeholder(self) -> torch.Tensor:
        """Of as many filler words as the prompt has vectors."""
        return self._remembered(b"placeholder", lambda: self._encoded(self._filled, None))

    def _encoded(self, texts: Spliced, prompts: torch.Tensor | None) -> torch.Tensor:
        embedded, ends = texts.behind(prompts)
        with torch.autocast(embedded.device.type, torch.bfloat16, enabled=self._half):
            found = self._encoder.text_features(embedded, ends)
        return F.normalize(found.float(), dim=-1).view(-1, self._n_classes, found.shape[-1])

    def _remembered(self, key: bytes, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self._kept:
            with torch.no_grad():
                self._kept[key] = make()
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
