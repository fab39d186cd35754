"""Class means: made of embeddings on an agent, merged over agents, and used as a classifier.

A class without samples is absent, never a zero vector; counts travel with the means.

Source: Tan et al., FedProto: Federated Prototype Learning across Heterogeneous Clients, AAAI 2022.
Deviation: the mean over agents is weighted by samples (eq. 6 without its further 1/|N_j|, which shrinks it), or uniform
    as in the released code; what an agent sends comes from a clean pass after its training, where the code gathers
    embeddings of moving weights; a class that nobody sends any more keeps its last mean.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, RemoteFault
from common.method import RunSpec, Scores, Term
from common.payloads import Prototypes
from common.samples import Labels

Weighting = Literal["weighted", "uniform"]
Of = Literal["samples", "means"]
TERMS: dict[Of, str] = {"samples": "prototypes", "means": "prototype_means"}  # of a learner, by what is drawn to g
MOST = np.iinfo(np.int64).max  # samples of a class: agents say how many, and sums may exceed it
BELOW = 10.0  # how far under all others an absent class scores: finite, so that losses can be summed


@dataclass(frozen=True)
class Privacy:
    """What an agent does to its means before they leave: none of fewer samples, a largest norm, Gaussian noise."""

    min_count: int = 1
    clip: float = 0.0  # 0: not clipped
    noise: float = 0.0  # standard deviation per coordinate

    def __post_init__(self) -> None:
        if self.min_count < 1 or self.clip < 0 or self.noise < 0:
            raise ValueError(
                f"expected min_count >= 1, clip >= 0 and noise >= 0, got {self.min_count}, {self.clip}, {self.noise}"
            )


@dataclass(frozen=True)
class Known:
    """The common means, and for how many steps each has not been renewed."""

    prototypes: Prototypes | None = None
    ages: tuple[int, ...] = ()


def check_run(run: RunSpec[Any]) -> None:
    """Raises ConfigError when class means of different agents, or of one image's features, would not be alike."""
    if run.model.options.get("features") == "dense":
        raise ConfigError(f"{run.method} takes one feature an image: it needs [model] features = 'global', not 'dense'")
    if run.head == "agent":
        raise ConfigError(f"{run.method} compares classes across agents: it needs [model] head = 'run', got 'agent'")


def class_means(
    embeddings: Scores, labels: Labels, privacy: Privacy, rng: "np.random.Generator", *, unit: bool = False
) -> Prototypes | None:
    """Of each class that has enough samples; None when none has.

    Args:
        embeddings: (n, dim).
        labels: (n,), from 0.
        privacy: what is held back, clipped and blurred.
        rng: for the noise; drawn from only when there is some.
        unit: scale each mean to length 1.
    """
    classes, counts = np.unique(labels, return_counts=True)
    enough = counts >= privacy.min_count
    classes, counts = classes[enough], counts[enough]
    if not len(classes):
        return None
    means = np.stack([embeddings[labels == c].mean(axis=0, dtype=np.float64) for c in classes])
    if unit:
        means = _unit(means)
    if privacy.clip:
        means *= np.minimum(1, privacy.clip / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))
    if privacy.noise:
        means += privacy.noise * rng.standard_normal(means.shape)
    return Prototypes(classes.astype(np.int64), counts.astype(np.int64), means.astype(np.float32))


@dataclass
class Merging:
    """One running sum per class, whatever the number of agents."""

    dim: int
    n_classes: int | None  # None: ids are not checked
    weighting: Weighting = "weighted"
    _sums: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    _masses: dict[int, float] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def add(self, agent: str, sent: Prototypes | None) -> None:
        """Raises a RemoteFault that names the agent when these are no class means of this run."""
        if sent is None:
            return
        self._check(agent, sent)
        for c, n, vector in zip(sent.class_ids.tolist(), sent.counts.tolist(), sent.vectors, strict=True):
            mass = n if self.weighting == "weighted" else 1
            self._sums[c] = self._sums.get(c, 0.0) + mass * vector.astype(np.float64)
            self._masses[c] = self._masses.get(c, 0.0) + mass
            self._counts[c] = self._counts.get(c, 0) + n

    def merged(self, before: Known, *, unit: bool = False, max_age: int = 0) -> Known:
        """With what is known of classes that nobody sent, until it is older than `max_age` steps (0: for ever)."""
        kept: dict[int, tuple[Any, int, int]] = {}
        if before.prototypes is not None:
            old = before.prototypes
            rows = zip(old.class_ids.tolist(), old.vectors, old.counts.tolist(), before.ages, strict=True)
            kept = {c: (vector, n, age + 1) for c, vector, n, age in rows if not max_age or age < max_age}
        for c, total in self._sums.items():
            mean = (total / self._masses[c])[None]
            kept[c] = ((_unit(mean) if unit else mean)[0], self._counts[c], 0)
        if not kept:
            return Known()
        ids = sorted(kept)
        vectors = np.stack([kept[c][0] for c in ids]).astype(np.float32)
        counts = np.array([min(kept[c][1], MOST) for c in ids], np.int64)
        return Known(Prototypes(np.array(ids, np.int64), counts, vectors), tuple(kept[c][2] for c in ids))

    def _check(self, agent: str, sent: Prototypes) -> None:
        ids, counts, shape = sent.class_ids, sent.counts, sent.vectors.shape
        if shape != (len(ids), self.dim) or counts.shape != ids.shape:
            raise RemoteFault(
                f"agent {agent}: prototypes do not fit the run, expected {len(ids)} vectors of {self.dim} with a count "
                f"each, got {list(shape)} and {len(counts)} counts"
            )
        if len(ids) and (counts.min() < 1 or (np.diff(ids) <= 0).any() or ids.min() < 0):
            raise RemoteFault(
                f"agent {agent}: prototypes need ascending class ids from 0 and counts of at least 1, got ids "
                f"{ids[:8].tolist()} with counts {counts[:8].tolist()}"
            )
        if self.n_classes is not None and len(ids) and ids.max() >= self.n_classes:
            raise RemoteFault(f"agent {agent}: prototype of class {ids.max()}, the run has {self.n_classes} classes")
        if sent.vectors.dtype != np.float32:
            raise RemoteFault(f"agent {agent}: prototypes must be of float32, got {sent.vectors.dtype}")
        if not np.isfinite(sent.vectors).all():
            raise RemoteFault(f"agent {agent}: prototypes hold NaN or infinity")


def nearest(embeddings: Scores, prototypes: Prototypes | None, n_classes: int, scale: float = 1.0) -> Scores:
    """scale * (1 - ||z - g||^2 / 2), (n, n_classes): for unit vectors scale * cosine, as an encoder's own scores.

    A class without a mean scores below all that have one; without any mean all score alike.
    """
    if prototypes is None or not len(prototypes):
        return np.zeros((len(embeddings), n_classes), np.float32)
    z, g = embeddings.astype(np.float32), prototypes.vectors.astype(np.float32)
    squares = (z**2).sum(1)[:, None] - 2 * z @ g.T + (g**2).sum(1)[None]
    near = np.float32(scale) * (1 - squares / 2)
    scores = np.tile(near.min(axis=1, initial=0.0)[:, None] - np.float32(BELOW), n_classes)
    scores[:, prototypes.class_ids] = near
    return scores


def blended(scores: Scores, near: Scores, prototypes: Prototypes | None, share: float) -> Scores:
    """(1 - share) * scores + share * near; a class without a mean keeps its score."""
    if prototypes is None or not share:
        return scores
    mixed, ids = np.array(scores), prototypes.class_ids
    mixed[:, ids] = (1 - share) * scores[:, ids] + share * near[:, ids]
    return mixed


def regulariser(prototypes: Prototypes | None, strength: float, of: Of = "samples") -> tuple[Term, ...]:
    """The learner's term that draws embeddings, or their class means of a batch, to the means; once there are some."""
    if prototypes is None or not strength:
        return ()
    return (Term(TERMS[of], strength, {"class_ids": prototypes.class_ids, "vectors": prototypes.vectors}),)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors / lengths
