"""Which entries of a model are personal: scores, the running score, the quantile. FedOBP's arithmetic.

Source: Federated Optimal Brain Personalization, arXiv 2604.16574. Scores are float32, tensor by tensor, so that server
and agent come to the same bits from the same models; the quantile needs one copy of all of them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, RemoteFault
from common.method import Learner, Site, Spec
from common.payloads import Array, Weights

Form = Literal["obd", "change", "fisher", "gradient"]
Norm = Literal["none", "layer"]
LARGEST = np.finfo(np.float32).max
NEEDS_DATA: tuple[Form, ...] = ("fisher", "gradient")
Floats = NDArray[np.float32]
Scored = Mapping[str, Floats]  # the score of every entry, by tensor
Bits = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Rule:
    """How personal entries are chosen: above the q-quantile of a score, of which `ema` is the old value's share.

    With `times` above 0: those above that multiple of the mean score, however many they are.
    """

    score: Form
    q: float
    ema: float
    norm: Norm
    times: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1 or not 0 <= self.ema < 1:
            raise ValueError(f"q must be in [0, 1] and ema in [0, 1), got q {self.q}, ema {self.ema}")
        if not 0 <= self.times < math.inf:
            raise ValueError(f"times must be finite and not negative, got {self.times}")


@dataclass(frozen=True)
class Chosen:
    """The personal entries, True where one is, and the running scores that they were chosen by."""

    bits: Bits
    running: Scored


def choose(
    rule: Rule,
    own: Weights,
    base: Weights,
    names: Iterable[str],
    before: Mapping[str, Array] | None,
    slopes: Weights | None = None,
) -> Chosen:
    """Which entries of `own` stay, beside the common `base`; `before` is the running score so far.

    Raises:
        RemoteFault: as `scores`.
    """
    running = blended(scores(rule.score, own, base, names, slopes), before, rule.ema)
    values = ranked(rule, running)
    bits = above_mean(values, rule.times) if rule.times else above_quantile(values, rule.q)
    return Chosen(bits, running)


def ranked(rule: Rule, running: Scored) -> Scored:
    """What the entries of all tensors are compared by."""
    return layer_normalised(running) if rule.norm == "layer" else running


def choose_on_agent(
    rule: Rule, own: Weights, base: Weights, only: Iterable[str], site: Site[Any], before: Mapping[str, Array] | None
) -> Chosen:
    """As `choose`, on the device: the span "score" tells its cost, and the scores may use its data."""
    with site.span("score", len(site.data.train)):
        learner = site.learner()
        names = scored_names({n: s for n, s in learner.parameters().items() if n in base}, only)
        return choose(rule, own, base, names, before, slopes_of(rule.score, own, learner, site))


def slopes_of(form: Form, own: Weights, learner: Learner, site: Site[Any]) -> Weights | None:
    """What a score takes from local data, for the loss L at the model c.

    gradient: dL/dc. fisher: the diagonal of the empirical Fisher information, the mean over samples of each one's
    squared gradient; a backward pass for every sample, so its labels are the data's and not the model's own draws.
    """
    if form not in NEEDS_DATA:
        return None
    samples, objective = site.data.train, site.training.objective
    if form == "gradient":
        return learner.gradients(own, samples, objective)
    total: dict[str, Floats] = {}
    for i in range(len(samples)):
        for name, gradient in learner.gradients(own, samples.take(np.array([i])), objective).items():
            square = np.square(gradient.astype(np.float32, copy=False)) / np.float32(len(samples))
            total[name] = np.asarray(total[name] + square if name in total else square, np.float32)
    return Weights(total)


def scored_names(parameters: Mapping[str, Spec], only: Iterable[str]) -> tuple[str, ...]:
    """Names of the tensors that get a score: params (never buffers or counters), of these layers if any are given.

    Raises:
        ConfigError: a layer of that name does not exist.
    """
    layers = {name: spec.layer for name, spec in parameters.items() if spec.kind == "param"}
    chosen: set[str] = set()
    for wanted in only:
        found = {name for name, layer in layers.items() if layer == wanted or layer.startswith(f"{wanted}.")}
        if not found:
            known = ", ".join(dict.fromkeys(layers.values()))
            raise ConfigError(f"[method] only: the model has no layer {wanted!r} that is shared; it has: {known}")
        chosen |= found
    return tuple(name for name in layers if not only or name in chosen)


def scores(
    form: Form, own: Weights, base: Weights, names: Iterable[str], slopes: Weights | None = None
) -> dict[str, Floats]:
    """The score of every entry, for own model c, base g and what `slopes_of` has of local data.

    obd |(c - g) c|: what zeroing c costs, the drift c - g in the place of the gradient. change (c - g)^2: what
    replacing c by g costs, likewise. From data: fisher E[(dL/dc)^2], gradient |dL/dc (c - g)|. An infinite score counts
    as the largest finite number, or a mean or a norm over the others would be lost.

    Raises:
        RemoteFault: a tensor is missing, has another shape, or its scores are not numbers; the text names it.
    """
    found: dict[str, Floats] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name in names:
            if name not in own or own[name].shape != base[name].shape:
                got = list(own[name].shape) if name in own else "nothing"
                raise RemoteFault(f"tensor {name!r} cannot be scored: expected {list(base[name].shape)}, got {got}")
            slope = None if slopes is None else slopes[name].astype(np.float32, copy=False)
            c, g = own[name].astype(np.float32, copy=False), base[name].astype(np.float32, copy=False)
            found[name] = np.minimum(_score(form, c, g, slope), LARGEST)
            if np.isnan(found[name]).any():
                raise RemoteFault(f"tensor {name!r} cannot be scored: its scores are NaN")
    return found


def _score(form: Form, c: Floats, g: Floats, slope: Floats | None) -> Floats:
    match form:
        case "obd":
            return np.asarray(np.abs((c - g) * c))
        case "change":
            return np.asarray(np.square(c - g))
        case _ if slope is None:
            raise ValueError(f"score {form!r} needs slopes of local data")
        case "fisher":
            return slope
        case "gradient":
            return np.asarray(np.abs(slope * (c - g)))


def blended(new: Scored, old: Mapping[str, Array] | None, alpha: float) -> Scored:
    """Running score (1 - alpha) new + alpha old: alpha weighs the old value, as in the authors' code."""
    if old is None or alpha == 0:
        return new
    a, rest = np.float32(alpha), np.float32(1) - np.float32(alpha)
    return {name: np.asarray(rest * score + a * old[name].astype(np.float32)) for name, score in new.items()}


def layer_normalised(values: Scored) -> dict[str, Floats]:
    """Each tensor on [0, 1]; one whose scores are all equal becomes zeros (the authors' code divides by zero)."""

    def one(score: Floats) -> Floats:
        low, high = score.min(initial=np.inf), score.max(initial=-np.inf)
        return np.asarray((score - low) / (high - low)) if high > low else np.zeros_like(score)

    return {name: one(score) for name, score in values.items()}


def above_mean(values: Scored, times: float) -> dict[str, NDArray[np.bool_]]:
    """True where a score is above `times` the mean of all scores, summed in float64 tensor by tensor."""
    n = sum(score.size for score in values.values())
    total = sum(float(score.sum(dtype=np.float64)) for score in values.values())
    bar = times * total / n if n else 0.0
    return {name: np.asarray(score > bar) for name, score in values.items()}


def above_quantile(values: Scored, q: float) -> dict[str, NDArray[np.bool_]]:
    """True where a score is above the floor(q (N - 1))-th smallest of all N (counted from 0).

    So N - 1 - floor(q (N - 1)) entries, fewer when scores tie at the threshold. O(N), of any size.
    """
    flat = np.concatenate([score.ravel() for score in values.values()]) if values else np.zeros(0, np.float32)
    if not flat.size:
        return {}
    rank = math.floor(q * (flat.size - 1))
    flat.partition(rank)
    return {name: np.asarray(score > flat[rank]) for name, score in values.items()}
