"""Heads over a frozen backbone that is one ONNX graph: onnxruntime computes features, numpy trains; no torch."""

from collections.abc import Mapping

from common import models
from common.errors import ConfigError
from common.method import ModelSpec, Scalar
from edge_client.learners.onnx.learner import OnnxLearner


def make(
    model: ModelSpec,
    n_classes: int,
    *,
    objective: str,
    objective_options: Mapping[str, Scalar],
    terms: tuple[str, ...],
) -> OnnxLearner:
    if model.name != models.EXPORTED or objective != "cross_entropy":
        raise ConfigError(
            f"the onnx learner trains heads over an exported backbone ([model] name = {models.EXPORTED!r}) with "
            f"cross_entropy only, got model {model.name!r} with objective {objective!r}"
        )
    return OnnxLearner(model, n_classes, terms)
