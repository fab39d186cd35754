"""A small prompted model in numpy for the tests of methods: the same tensors, parts and variants as `prompted`.

Texts are a fixed linear map of the prompt, t_k = P_k vec(prompt); an embedding is f + A f. Gradients are written out;
the fixed maps are the same in every process. A sample is a vector of `tiny.DIM` numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.method import Fitted, Scalar, Scores, Spec, Term, Training
from common.payloads import Array, Weights
from common.samples import Samples
from tests.methods.tiny import DIM

M, WIDTH = 2, 3
N_MAX = 8


@dataclass(frozen=True)
class PromptModel:
    variant: Mapping[str, Scalar] = field(default_factory=dict)

    def parameters(self, **variant: Scalar) -> dict[str, Spec]:
        asked = {**self.variant, **variant}
        found: dict[str, Spec] = {}
        if asked.get("context", M):
            found["prompt.context"] = Spec((1, M, WIDTH), layer="prompt", part="prompt")
            if rank := int(asked.get("rank", 0)):
                found["prompt.u"] = Spec((M, rank), layer="prompt", part="prompt")
                found["prompt.v"] = Spec((rank, WIDTH), layer="prompt", part="prompt")
            if asked.get("own"):
                found["prompt.own"] = Spec((1, M, WIDTH), layer="prompt", part="prompt")
        if asked.get("adapter"):
            found["adapter.fc2.weight"] = Spec((DIM, DIM), layer="adapter.fc2", part="adapter")
        return found

    def initial(self, rng: np.random.Generator, **variant: Scalar) -> Weights:
        drawn: dict[str, Array] = {}
        for name, spec in self.parameters(**variant).items():
            size = 0.02 if spec.part == "prompt" else 0.0
            drawn[name] = (size * rng.standard_normal(spec.shape)).astype(np.float32)
        return Weights(drawn)


class PromptLearner:
    def __init__(self, n_classes: int, **variant: Scalar) -> None:
        self.n_classes = n_classes
        self._model = PromptModel(variant)
        self.asked: tuple[Term, ...] = ()

    def parameters(self) -> dict[str, Spec]:
        return self._model.parameters()

    def initial(self, rng: np.random.Generator) -> Weights:
        return self._model.initial(rng)

    def fit(
        self,
        weights: Weights,
        samples: Samples,
        training: Training,
        *,
        terms: tuple[Term, ...] = (),
        trainable: Iterable[str] | None = None,
        rng: np.random.Generator,
    ) -> Fitted:
        assert list(weights) == list(self.parameters()), f"{list(weights)} for {list(self.parameters())}"
        w: dict[str, NDArray[Any]] = {name: np.array(array) for name, array in weights.items()}
        moves = [name for name in w if trainable is None or name in set(trainable)]
        x, loss, n_steps = samples.read().astype(np.float32), 0.0, 0
        for _ in range(training.epochs):
            order, loss = rng.permutation(len(samples)), 0.0
            for first in range(0, len(order), training.batch):
                batch = order[first : first + training.batch]
                slopes, batch_loss = self._slopes(w, x[batch], samples.labels[batch], terms)
                for name in moves:
                    w[name] = (w[name] - np.float32(training.lr) * slopes[name]).astype(np.float32)
                loss, n_steps = loss + batch_loss * len(batch) / len(order), n_steps + 1
        return Fitted(Weights(w), loss, n_steps)

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        return self.embed(weights, samples) @ self._texts(weights).T

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        x = samples.read().astype(np.float32)
        return x + x @ weights["adapter.fc2.weight"].T if "adapter.fc2.weight" in weights else x

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        x = samples.read().astype(np.float32)
        return Weights(self._slopes(weights, x, samples.labels, ())[0])

    def _texts(self, w: Mapping[str, Array]) -> NDArray[np.float32]:
        """(n_classes, DIM)."""
        return 0.1 * WORDS[: self.n_classes] + (TOWER[: self.n_classes] @ _prompt(w)).astype(np.float32)

    def _slopes(
        self, w: Mapping[str, Array], x: Array, y: Array, terms: tuple[Term, ...]
    ) -> tuple[dict[str, NDArray[Any]], float]:
        t = self._texts(w)
        z = x + x @ w["adapter.fc2.weight"].T if "adapter.fc2.weight" in w else x
        s = z @ t.T
        s = s - s.max(axis=1, keepdims=True)
        log_p = s - np.log(np.exp(s).sum(axis=1, keepdims=True))
        d_s = np.exp(log_p)
        d_s[np.arange(len(y)), y] -= 1
        d_s /= len(y)
        d_z, d_prompt = d_s @ t, np.einsum("kdp,kd->p", TOWER[: self.n_classes], d_s.T @ z)
        for term in terms:
            if term.name == "prototypes":
                table = dict(zip(term.arrays["class_ids"].tolist(), term.arrays["vectors"], strict=True))
                has = np.array([int(c) in table for c in y])
                targets = np.stack([table.get(int(c), np.zeros(DIM)) for c in y])
                d_z = d_z + term.strength * 2 * (z - targets) * has[:, None] / max(1, has.sum())
            elif term.name == "prototype_means":
                for c, vector in zip(term.arrays["class_ids"].tolist(), term.arrays["vectors"], strict=True):
                    of_class = y == c
                    if of_class.any():
                        pull = z[of_class].mean(axis=0) - vector
                        d_z = d_z + term.strength * 2 * pull * of_class[:, None] / of_class.sum()
            else:
                assert term.name == "text_contrast", term.name
                d_prompt = d_prompt + term.strength * float(term.arrays["temperature"]) * _prompt(w)
        slopes: dict[str, NDArray[Any]] = {}
        middle = d_prompt.reshape(M, WIDTH)
        for name in w:
            match name:
                case "prompt.context" | "prompt.own":
                    slopes[name] = middle[None]
                case "prompt.u":
                    slopes[name] = middle @ w["prompt.v"].T
                case "prompt.v":
                    slopes[name] = w["prompt.u"].T @ middle
                case _:
                    slopes[name] = d_z.T @ x
        return slopes, float(-log_p[np.arange(len(y)), y].mean())


def _prompt(w: Mapping[str, Array]) -> NDArray[np.float32]:
    found = np.zeros((M, WIDTH), np.float32)
    if "prompt.context" in w:
        found = found + w["prompt.context"][0]
    if "prompt.u" in w:
        found = found + w["prompt.u"] @ w["prompt.v"]
    if "prompt.own" in w:
        found = found + w["prompt.own"][0]
    return found.reshape(-1).astype(np.float32)


_fixed = np.random.default_rng(11)
TOWER = _fixed.standard_normal((N_MAX, DIM, M * WIDTH)).astype(np.float32)
WORDS = _fixed.standard_normal((N_MAX, DIM)).astype(np.float32)
