"""Learners, found by name: numpy, onnx, torch. Each is a package with `make`; one more changes `choose` alone.

make(model, n_classes, *, objective, objective_options, terms) -> Learner
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from common import models, objectives
from common.errors import ConfigError, UnknownName
from common.method import Learner, ModelSpec, Scalar, Training

_NEEDS = {"torch": "torch", "onnx": "onnxruntime"}  # learner -> the package that it cannot do without


def names() -> tuple[str, ...]:
    """The learners of this build, whether or not what they need is installed."""
    return tuple(sorted(p.parent.name for p in Path(__file__).parent.glob("*/__init__.py")))


def available() -> tuple[str, ...]:
    """The learners that can work here. Imports none of them."""
    return tuple(n for n in names() if n not in _NEEDS or importlib.util.find_spec(_NEEDS[n]) is not None)


def choose(preference: str, model: ModelSpec, *, objective: str = "cross_entropy") -> str:
    """The learner for a model: the preferred one, or with "auto" the lightest that can train it.

    Raises:
        UnknownName: there is no such learner, model or objective.
        ConfigError: the preferred one cannot train it, or what is needed is not installed.
    """
    if model.name not in models.names():
        raise UnknownName("model", model.name, models.names())
    if objective not in objectives.names():
        raise UnknownName("objective", objective, objectives.names())
    if model.name == models.EXPORTED or preference == "onnx":
        return _onnx(preference, model, objective)
    numpy_can = models.is_dense(model.name) and objective == "cross_entropy"
    what = f"model {model.name!r} with objective {objective!r}"
    match preference:
        case "auto" if numpy_can:
            return "numpy"
        case "numpy" if not numpy_can:
            raise ConfigError(
                f"the numpy learner trains linear and mlp with cross_entropy only; {what} needs edgefed[torch]"
            )
        case "auto" | "torch":
            models.need_torch(what)
            return "torch"
        case _ if preference in names():
            return preference
        case _:
            raise UnknownName("learner", preference, ("auto", *names()))


def _onnx(preference: str, model: ModelSpec, objective: str) -> str:
    """The learner for heads over an exported backbone; a linear head on its features stays with numpy."""
    if preference not in ("auto", *names()):
        raise UnknownName("learner", preference, ("auto", *names()))
    if objective == "cross_entropy" and models.is_dense(model.name):
        return "numpy"
    if objective != "cross_entropy" or model.name != models.EXPORTED or preference not in ("auto", "onnx"):
        raise ConfigError(
            f"the onnx learner trains heads over an exported backbone with cross_entropy, and nothing else does: "
            f"expected [model] name = {models.EXPORTED!r} and learner auto or onnx, got model {model.name!r} with "
            f"objective {objective!r} and learner {preference!r}"
        )
    return "onnx"


def make(
    name: str,
    model: ModelSpec,
    n_classes: int,
    *,
    objective: str = "cross_entropy",
    objective_options: Mapping[str, Scalar] | None = None,
    terms: tuple[str, ...] = (),
) -> Learner:
    """A learner for one variant of a model (`common.models.varied` makes it); `terms` are the loss-space ones."""
    if name not in names():
        raise UnknownName("learner", name, names())
    package = importlib.import_module(f"edge_client.learners.{name}")
    options = dict(objective_options or {})
    return cast(Learner, package.make(model, n_classes, objective=objective, objective_options=options, terms=terms))


def model_bytes(learner: Learner, training: Training) -> int:
    """Parameters, gradients and optimiser state of one training, exactly."""
    return models.training_bytes(learner.parameters(), training)
