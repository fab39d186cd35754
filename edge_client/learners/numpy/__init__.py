"""Softmax regression and a one-hidden-layer MLP in numpy alone: tests, the quickstart, tiny devices."""

from collections.abc import Mapping

from common.errors import ConfigError
from common.method import ModelSpec, Scalar
from common.models import is_dense
from edge_client.learners.numpy.learner import NumpyLearner


def make(
    model: ModelSpec,
    n_classes: int,
    *,
    objective: str,
    objective_options: Mapping[str, Scalar],
    terms: tuple[str, ...],
) -> NumpyLearner:
    if not is_dense(model.name) or objective != "cross_entropy":
        raise ConfigError(
            "the numpy learner trains linear and mlp with cross_entropy only; "
            f"model {model.name!r} with objective {objective!r} needs edgefed[torch]"
        )
    return NumpyLearner(model, n_classes, terms)
