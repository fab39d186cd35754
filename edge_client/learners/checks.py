"""What every learner checks before it works: that weights, samples and terms fit the model."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from common import models
from common.errors import EXIT_DATA, ConfigError, LocalFault, RemoteFault, UnknownName
from common.method import Spec, Term
from common.models import Shape
from common.payloads import Weights
from common.samples import Labels, Samples


def weights(wanted: Mapping[str, Spec], got: Weights, model: str) -> None:
    wrong = models.difference(wanted, got)
    if wrong is not None:
        raise RemoteFault(f"weights do not fit model {model!r}: {wrong}; were they made for other [model] options?")


def batch(x: NDArray[np.generic], wanted: Shape, model: str, *, flattens: bool) -> None:
    got = x.shape[1:]
    if got == wanted or (flattens and np.prod(got) == np.prod(wanted)):
        return
    shape = models.shape_text(got)
    text = f"samples do not fit model {model!r}: expected {models.shape_text(wanted)}, got {shape}"
    raise ConfigError(f"{text}; set [model] input = {shape!r}", exit_code=EXIT_DATA)


def labels(y: Labels, n_classes: int) -> None:
    if len(y) and (y.min() < 0 or y.max() >= n_classes):
        raise LocalFault(
            f"labels must be from 0 to {n_classes - 1} for a head of {n_classes} classes, got {y.min()} to {y.max()}"
        )


def terms(given: Iterable[Term], asked: Collection[str]) -> None:
    """Loss-space terms must have been asked for when the learner was made; "proximal" need not be."""
    for term in given:
        if term.name != "proximal" and term.name not in asked:
            raise LocalFault(f"term {term.name!r} was not asked for: name it in site.learner(terms=({term.name!r},))")


def known_terms(asked: Iterable[str], known: Collection[str]) -> None:
    for name in asked:
        if name not in known and name != "proximal":
            raise UnknownName("term", name, {*known, "proximal"})


def prototypes(term: Term, n_classes: int, dim: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The arrays of term "prototypes": `class_ids` (k,) within the head's classes, `vectors` (k, dim)."""
    for name in ("class_ids", "vectors"):
        if name not in term.arrays:
            raise LocalFault(f"term 'prototypes' needs the arrays class_ids and vectors, got {sorted(term.arrays)}")
    ids = np.array(term.arrays["class_ids"], np.int64)
    vectors = np.array(term.arrays["vectors"], np.float32)
    if vectors.shape != (len(ids), dim):
        raise LocalFault(f"term 'prototypes': expected vectors {[len(ids), dim]}, got {list(vectors.shape)}")
    if len(ids) and (ids.min() < 0 or ids.max() >= n_classes):
        raise LocalFault(f"term 'prototypes': class ids must be below {n_classes}, got {ids.min()} to {ids.max()}")
    return ids, vectors


def trainable(names: Iterable[str] | None, specs: Mapping[str, Spec]) -> frozenset[str]:
    """The names that may move. A name that the model does not have is a mistake worth hearing of."""
    chosen = frozenset(specs if names is None else names)
    for name in sorted(chosen):
        if name not in specs:
            raise UnknownName("tensor", name, specs)
    if not any(specs[name].kind == "param" for name in chosen):
        raise LocalFault(f"nothing to train: expected a param tensor among trainable, got {sorted(chosen)}")
    return chosen


def layer(name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownName("layer", name, known)


def rows(samples: Samples) -> int:
    """Samples that a learner reads at a time when it only looks: memory stays small whatever their size."""
    if not len(samples):
        return 1
    size = int(np.prod(samples.read(np.zeros(1, np.int64)).shape[1:]))
    return max(8, min(128, 4_000_000 // max(1, size)))
