"""What a net's module says about itself: its tensors, and how their first values are drawn (by numpy, from our rng)."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from common import models, nets, objectives
from common.method import ModelSpec, Scalar, Spec
from common.models import fan_in_uniform, from_options, part_of
from common.payloads import Array, Kind, Weights

Layers = Iterator[tuple[str, str, nn.Module, torch.Tensor]]


def build(spec: ModelSpec, n_classes: int, objective: str, objective_options: Mapping[str, Scalar]) -> nn.Module:
    """The module without storage (device "meta"), with the objective's own tensors if it has some."""
    with torch.device("meta"):
        net = cast(nn.Module, nets.load(spec.name).build(models.options_of(spec), n_classes))
        module = objectives.load(objective)
        own = getattr(module, "build", None)
        if own is not None:
            net.objective = own(net.dim, from_options(module.Options, objective_options, f"option of {objective}"))
    return net


def tensors(spec: ModelSpec, n_classes: int, objective: str, options: Mapping[str, Scalar]) -> dict[str, Spec]:
    return specs_of(build(spec, n_classes, objective, options))


def specs_of(net: nn.Module) -> dict[str, Spec]:
    """name -> Spec, in the order of the state_dict; `layer` is the path of the module that owns the tensor."""
    return {
        name: Spec(tuple(t.shape), str(t.dtype).removeprefix("torch."), _kind(t), layer, part_of(name))
        for name, layer, _, t in _owned(net)
    }


def drawn(
    spec: ModelSpec, n_classes: int, objective: str, options: Mapping[str, Scalar], rng: "np.random.Generator"
) -> Weights:
    """First weights. Linear and convolution layers: uniform by fan-in, as torch does, unless the net says
    `conv_draw = "fan_out_normal"` (He et al. 2015, as torchvision's ResNets); norms: ones and zeros. A module with
    `first(name, shape, rng)` draws its own tensors.
    """
    net = build(spec, n_classes, objective, options)
    he = getattr(net, "conv_draw", "") == "fan_out_normal"
    arrays = {name: _first(name, module, tensor, rng, he=he) for name, _, module, tensor in _owned(net)}
    return Weights(arrays, {name: spec.kind for name, spec in specs_of(net).items()})


def _owned(net: nn.Module) -> Layers:
    for name, tensor in net.state_dict(keep_vars=True).items():
        layer = name.rpartition(".")[0]
        yield name, layer, net.get_submodule(layer), tensor


def _kind(tensor: torch.Tensor) -> Kind:
    if isinstance(tensor, nn.Parameter):
        return "param"
    return "buffer" if tensor.is_floating_point() else "counter"


def _first(name: str, module: nn.Module, tensor: torch.Tensor, rng: "np.random.Generator", *, he: bool) -> Array:
    shape = tuple(tensor.shape)
    own = getattr(module, "first", None)
    if own is not None:
        return cast(Array, own(name.rpartition(".")[2], shape, rng))
    if isinstance(module, nn.Conv2d | nn.Linear):
        weight: Any = module.weight
        fan_in = int(np.prod(weight.shape[1:]))
        if he and isinstance(module, nn.Conv2d) and name.endswith(".weight"):
            fan_out = shape[0] * int(np.prod(shape[2:]))
            return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_out))
        return fan_in_uniform(rng, shape, fan_in)
    ones = name.endswith((".weight", ".running_var"))
    return np.full(shape, ones, dtype=str(tensor.dtype).removeprefix("torch."))
