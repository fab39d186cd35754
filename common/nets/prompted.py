"""Learned context vectors before the class names, through the frozen text tower of a dual encoder.

Samples are image features of the same encoder, made before training (`edge_client.features`), so no image tower is
here; the text tower is not among the tensors: what trains, travels and is averaged are prompts and adapter alone.

    prompt.context (1, M, width)                the common prompt; with `context = 0` the template's words instead
    prompt.u (M, rank), prompt.v (rank, width)  with `rank`: the prompt is context + u v (FedPGP)
    prompt.own (1, M, width)                    with `own`: a second prompt (FedOTP)
    adapter.*                                   with `adapter`: z = norm(ratio * mlp(f) + (1 - ratio) * f)

Source: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022 (CoOp, name at the end, one context for
    all classes); Gao et al., CLIP-Adapter, 2021.
With `features = "dense"` an image is its map of local features, and a score is what optimal transport brings from its
places to the class's prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common import class_texts, encoders
from common.errors import ConfigError, LocalFault
from common.method import Term
from common.models import fan_in_uniform
from common.nets import _transport
from common.nets._texts import Texts, texts_of
from common.objectives import Seen
from common.payloads import Array

Loss = Callable[[Seen], torch.Tensor]
SPREAD = 0.02  # standard deviation of first prompts


@dataclass(frozen=True)
class Options:
    encoder: str = "tiny"
    texts: str = ""  # the data set whose names and template are taken
    template: str = ""  # another template
    classes: tuple[str, ...] = ()  # put in by the agent
    context: int = 16  # vectors; 0: the template's words
    rank: int = 0
    own: bool = False
    adapter: bool = False
    ratio: float = 0.2
    reduction: int = 4  # of the adapter's hidden layer
    features: str = "global"  # or dense
    mass: float = 0.8  # of transport
    smoothing: float = 0.1
    iterations: int = 100
    precision: str = "float32"  # or bfloat16, in the text tower alone
    channels_last: ClassVar[bool] = False

    @property
    def input(self) -> str:
        facts = encoders.facts(self.encoder)
        rows, columns = facts.map
        return f"{rows}x{columns}x{facts.dim}" if self.features == "dense" else str(facts.dim)


class Vectors(nn.Module):
    """Prompts. Their first values: normal, so that u v starts near zero."""

    context: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    own: torch.Tensor

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.empty(shape)))

    def first(self, name: str, shape: tuple[int, ...], rng: "np.random.Generator") -> Array:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(SPREAD)


class Out(nn.Linear):
    """The adapter's last layer starts at zero, so that the first embedding is the image feature itself."""

    def first(self, name: str, shape: tuple[int, ...], rng: "np.random.Generator") -> Array:
        fan_in_uniform(rng, shape, self.in_features)  # drawn and dropped: the rest of the draw stays as it would be
        return np.zeros(shape, np.float32)


class Adapter(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), Out(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.fc2(torch.relu(self.fc1(x)))
        return changed


class Prompted(nn.Module):
    def __init__(self, options: Options, n_classes: int) -> None:
        super().__init__()
        facts, m = encoders.facts(options.encoder), options.context
        self.dim = facts.dim
        self._options, self._n_classes = options, n_classes
        self._texts: Texts | None = None  # the text tower is loaded when scores are first asked for
        self._now: torch.Tensor | None = None  # the latest text features, with their graph: terms look at them
        shapes: dict[str, tuple[int, ...]] = {"context": (1, m, facts.width)} if m else {}
        if m and options.rank:
            shapes |= {"u": (m, options.rank), "v": (options.rank, facts.width)}
        if m and options.own:
            shapes["own"] = (1, m, facts.width)
        self.prompt = Vectors(**shapes)
        self.adapter = Adapter(self.dim, max(1, self.dim // options.reduction)) if options.adapter else None
        self.terms: dict[str, Callable[[Term], Loss]] = {"text_contrast": self._text_contrast}

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(n, dim) of unit length; dense: (n, places, dim)."""
        if x.dim() == 4:
            x = x.flatten(2).transpose(1, 2)
        x = F.normalize(x, dim=-1)
        if self.adapter is None:
            return x
        ratio = self._options.ratio
        return F.normalize(ratio * self.adapter(x) + (1 - ratio) * x, dim=-1)

    def classifier(self, embedding: torch.Tensor) -> torch.Tensor:
        texts = self.texts(embedding.device)
        self._now = t = texts.features(self.prompts())  # (prompts, classes, dim)
        if embedding.dim() == 2:
            scores: torch.Tensor = texts.scale * (embedding @ t.mean(0).T)
            return scores
        o = self._options
        close = torch.einsum("bmd,nkd->bkmn", embedding, t)
        return texts.scale * (_transport.plan(1 - close, o.mass, o.smoothing, o.iterations) * close).sum((2, 3))

    def prompts(self) -> torch.Tensor | None:
        """(prompts, M, width); None: the template."""
        if not self._options.context:
            return None
        prompt = self.prompt
        common = prompt.context + prompt.u @ prompt.v if self._options.rank else prompt.context
        return torch.cat([common, prompt.own]) if self._options.own else common

    def texts(self, device: torch.device) -> Texts:
        if self._texts is None:
            o = self._options
            if len(o.classes) != self._n_classes:
                raise LocalFault(f"prompted needs {self._n_classes} class names for its texts, got {len(o.classes)}")
            self._texts = texts_of(o.encoder, o.texts, o.template, o.classes, o.context, o.precision, str(device))
        return self._texts

    def _text_contrast(self, term: Term) -> Loss:
        """Mean over classes of -log(e^(cos(g, c)/tau) / (e^(cos(g, c)/tau) + e^(cos(g, i)/tau))): the common prompt's
        texts g are drawn to those of the anchor c and pushed from the agent's own, i.

        Source: Cui et al., FedPGP, ICML 2024, eq. 7. The anchor is the template, or with `placeholder` the released
        code's: a prompt of placeholder words.
        """
        if not self._options.rank:
            raise LocalFault("term 'text_contrast' compares a common prompt with an agent's own: it needs rank > 0")
        temperature, placeholder = float(term.arrays["temperature"]), bool(term.arrays["placeholder"])

        def loss(seen: Seen) -> torch.Tensor:
            texts = self.texts(seen.embeddings[0].device)
            anchor = texts.placeholder() if placeholder else texts.features(None)
            if self._now is None:
                raise LocalFault("term 'text_contrast' was asked for before any scores")
            common = texts.features(self.prompt.context)
            return contrast(common[0], anchor[0], self._now[0], temperature)

        return loss


def contrast(common: torch.Tensor, anchor: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """Of (n_classes, dim) features of unit length; ln 2 where anchor and own are equal."""
    near, far = (common * anchor).sum(1) / temperature, (common * own).sum(1) / temperature
    return F.softplus(far - near).mean()


def build(options: Options, n_classes: int) -> nn.Module:
    if options.features not in ("global", "dense") or options.precision not in ("float32", "bfloat16"):
        raise ConfigError(
            f"model prompted: features must be 'global' or 'dense' and precision 'float32' or 'bfloat16', "
            f"got {options.features!r} and {options.precision!r}"
        )
    if min(options.context, options.rank) < 0 or options.reduction < 1 or options.iterations < 1:
        raise ConfigError("model prompted: context and rank must be at least 0, reduction and iterations at least 1")
    class_texts.of(options.texts, options.template)
    if not 0 < options.mass <= 1 or options.smoothing <= 0 or not 0 <= options.ratio <= 1:
        raise ConfigError(
            f"model prompted: expected 0 < mass <= 1, smoothing > 0 and 0 <= ratio <= 1, got mass {options.mass}, "
            f"smoothing {options.smoothing}, ratio {options.ratio}"
        )
    return Prompted(options, n_classes)
