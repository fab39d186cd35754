"""A net's features as an ONNX graph with its weights inside; batch norm as in evaluation, any number of images."""

import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import nn

from common import models
from common.errors import ConfigError
from common.method import ModelSpec
from common.nets import _describe
from common.payloads import Array

OPSET = 18


class _Features(nn.Module):
    def __init__(self, net: Any) -> None:  # Any: `features`, see common/nets
        super().__init__()
        self.net = net

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.net.features(pixels)
        return features


def exported(spec: ModelSpec, weights: Mapping[str, Array]) -> tuple[bytes, int]:
    """The graph, and the size of its features. Input "pixels" (n, channels, height, width), output "features" (n, dim).

    Raises:
        ConfigError: the weights are not of this model (names the first tensor that differs), or it takes no images.
    """
    net: Any = _describe.build(spec, 0, "cross_entropy", {}).to_empty(device="cpu")
    state = net.state_dict()
    for name, tensor in state.items():
        got = list(weights[name].shape) if name in weights else "nothing"
        if got != list(tensor.shape):
            raise ConfigError(
                f"the weights are not of model {spec.name!r}: tensor {name!r} must be {list(tensor.shape)}, got {got}"
            )
    net.load_state_dict({name: torch.from_numpy(np.array(weights[name])) for name in state})
    shape = models.shape_of(models.options_of(spec).input)
    if len(shape) != 3:
        raise ConfigError(f"only nets of images are exported, got input = {models.shape_text(shape)!r}")
    pixels = torch.zeros(2, shape[2], shape[0], shape[1])
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its internals
            program = torch.onnx.export(
                _Features(net).eval(),
                (pixels,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["features"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
                verbose=False,
            )
    except ImportError as error:
        raise ConfigError(f"exporting a backbone needs onnx and onnxscript: {error}") from error
    if program is None:
        raise ConfigError(f"model {spec.name!r} could not be exported")
    return program.model_proto.SerializeToString(), int(net.dim)
