"""Models by name: shapes, first weights, and the options that each takes; nothing here imports torch.

`linear`, `mlp` and `onnx` (a frozen backbone that was exported) are described here, so that they need no torch; every
other name is a file in `common/nets/`.
Options come from `[model]` of the run file. All models have `input`, the shape of one sample, because the server draws
first weights where there are no data: "28x28x1" or [28, 28, 1] (height, width, channels), or 64 for flat features.
"""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

import numpy as np

from common import nets
from common.errors import ConfigError, UnknownName
from common.method import ModelPart, ModelSpec, Scalar, Spec, Training
from common.payloads import Array, Weights

T = TypeVar("T")
Shape = tuple[int, ...]
Option = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class LinearOptions:
    input: str = "8x8x1"


@dataclass(frozen=True)
class MlpOptions:
    input: str = "8x8x1"
    hidden: int = 64


@dataclass(frozen=True)
class ExportedOptions:
    """A frozen backbone as one ONNX graph: `n_bytes` long, with features of size `dim`; its exporter says both."""

    input: str = "64x64x3"
    dim: int = 128
    n_bytes: int = 0


_PARTS: dict[str, ModelPart] = {
    "classifier": "head", "objective": "objective", "prompt": "prompt", "adapter": "adapter",
}  # fmt: skip
_DENSE: dict[str, type[LinearOptions] | type[MlpOptions]] = {"linear": LinearOptions, "mlp": MlpOptions}
EXPORTED = "onnx"
GRAPH = "graph"  # its one tensor beside the head's
_PLAIN: dict[str, type[Any]] = {**_DENSE, EXPORTED: ExportedOptions}  # Any: an Options dataclass


def names() -> tuple[str, ...]:
    return tuple(sorted({*_PLAIN, *nets.names()}))


def load(
    spec: ModelSpec,
    n_classes: int,
    *,
    objective: str = "cross_entropy",
    objective_options: Mapping[str, Scalar] | None = None,
) -> "NamedModel":
    """The model of that name; with `n_classes` 0 it has no head. An objective may bring tensors of its own.

    Raises:
        UnknownName: this build has no such model, or the model no such option.
        ConfigError: an option has a value of another type.
    """
    options_of(spec)
    return NamedModel(spec, n_classes, objective, dict(objective_options or {}))


@dataclass(frozen=True)
class NamedModel:
    """`common.method.Model`: a variant may change `model`, `n_classes` and every option."""

    spec: ModelSpec
    n_classes: int
    objective: str = "cross_entropy"
    objective_options: Mapping[str, Scalar] = field(default_factory=dict)

    def parameters(self, **variant: Scalar) -> dict[str, Spec]:
        spec, n_classes = varied(self.spec, self.n_classes, variant)
        if self._is_plain(spec):
            return dense(spec, n_classes)
        return dict(_net_describer().tensors(spec, n_classes, self.objective, self.objective_options))

    def initial(self, rng: "np.random.Generator", **variant: Scalar) -> Weights:
        spec, n_classes = varied(self.spec, self.n_classes, variant)
        if self._is_plain(spec):
            return _drawn(dense(spec, n_classes), rng)
        return cast(Weights, _net_describer().drawn(spec, n_classes, self.objective, self.objective_options, rng))

    def _is_plain(self, spec: ModelSpec) -> bool:
        return spec.name in _PLAIN and self.objective == "cross_entropy"  # others may bring tensors of their own


def is_dense(name: str) -> bool:
    """Whether numpy alone can train it."""
    return name in _DENSE


def varied(spec: ModelSpec, n_classes: int, variant: Mapping[str, Scalar]) -> tuple[ModelSpec, int]:
    """The model with some options changed. Another `model` keeps of the options only `input`."""
    changed = dict(variant)
    size = int(changed.pop("n_classes", n_classes))
    name = str(changed.pop("model", spec.name))
    kept = spec.options if name == spec.name else {k: v for k, v in spec.options.items() if k == "input"}
    return ModelSpec(name, {**kept, **changed}), size


def with_classes(spec: ModelSpec, classes: tuple[str, ...]) -> ModelSpec:
    """The model told its class names, if it is one that reads them (option `classes`)."""
    if spec.name in _PLAIN or "classes" not in {f.name for f in fields(options_of(spec))}:
        return spec
    return ModelSpec(spec.name, {**spec.options, "classes": classes})


def options_of(spec: ModelSpec) -> Any:  # Any: each model has its own Options dataclass
    """The model's options, checked; defaults where nothing is given."""
    if spec.name in _PLAIN:
        return from_options(_PLAIN[spec.name], spec.options, f"option of model {spec.name}")
    if spec.name not in nets.names():
        raise UnknownName("model", spec.name, names())
    need_torch(f"model {spec.name!r}")
    return from_options(nets.load(spec.name).Options, spec.options, f"option of model {spec.name}")


def from_options(cls: type[T], given: Mapping[str, Option], what: str) -> T:
    """An Options dataclass from what a run file says; fields have defaults, whose type decides.

    Raises:
        UnknownName: there is no such option.
        ConfigError: a value has another type than the default.
    """
    defaults = {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in defaults:
            raise UnknownName(what, name, defaults)
        wanted = type(defaults[name])
        if name == "input" and isinstance(value, int | tuple):
            value = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ConfigError(f"{what} {name!r}: expected {wanted.__name__}, got {value!r}")
        values[name] = value
    return cls(**values)


def shape_of(text: str) -> Shape:
    """As in "28x28x1" -> (28, 28, 1) and "64" -> (64,)."""
    if not re.fullmatch(r"[1-9]\d{0,6}(x[1-9]\d{0,6}x[1-9]\d{0,6})?", text):
        raise ConfigError(f"model input: expected height x width x channels as in '28x28x1', or '64', got {text!r}")
    return tuple(int(size) for size in text.split("x"))


def shape_text(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)


def need_torch(what: str) -> None:
    """Raises ConfigError where torch is not installed; a torch that is there and broken raises its own error."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(f"{what} needs edgefed[torch]: torch is not installed here (pip install 'edgefed[torch]')")


def dense(spec: ModelSpec, n_classes: int) -> dict[str, Spec]:
    """Tensors of models that need no torch; weights are (out, in), and the head has the names of any net's head."""
    options = options_of(spec)
    size = int(np.prod(shape_of(options.input)))
    found: dict[str, Spec] = {}
    if isinstance(options, ExportedOptions):
        found |= {GRAPH: Spec((options.n_bytes,), "uint8", "counter", GRAPH)}  # not averaged, no optimiser moves it
        size = options.dim
    if isinstance(options, MlpOptions):
        found |= {"fc1.weight": _spec("fc1", options.hidden, size), "fc1.bias": _spec("fc1", options.hidden)}
        size = options.hidden
    if n_classes:
        found |= {"classifier.weight": _spec("classifier", n_classes, size)}
        found |= {"classifier.bias": _spec("classifier", n_classes)}
    return found


def fan_in_uniform(rng: "np.random.Generator", shape: Shape, fan_in: int) -> Array:
    """Uniform in +-1/sqrt(fan_in): what torch draws for weights and biases of linear and convolution layers."""
    bound = np.float32(1 / np.sqrt(fan_in))
    return (rng.random(shape, dtype=np.float32) * 2 - 1) * bound


def difference(wanted: Mapping[str, Spec], got: Weights) -> str | None:
    """What is wrong with these weights for a model, naming the first tensor that differs; None when they fit."""
    for name, spec in wanted.items():
        if name not in got:
            return f"tensor {name!r} is missing, expected {list(spec.shape)} {spec.dtype}"
        array = got[name]
        if array.shape != spec.shape:
            return f"tensor {name!r}: expected shape {list(spec.shape)}, got {list(array.shape)}"
        if array.dtype != np.dtype(spec.dtype):
            return f"tensor {name!r}: expected {spec.dtype}, got {array.dtype}"
        if got.kind(name) != spec.kind:
            return f"tensor {name!r}: expected a {spec.kind}, got a {got.kind(name)}"
    extra = next((name for name in got if name not in wanted), None)
    return None if extra is None else f"tensor {extra!r} is not one of the model's"


def training_bytes(parameters: Mapping[str, Spec], training: Training) -> int:
    """Bytes of parameters, buffers, gradients and optimiser state while all of a model is trained."""
    sizes = {n: int(np.prod(s.shape, dtype=np.int64)) * np.dtype(s.dtype).itemsize for n, s in parameters.items()}
    trained = sum(size for name, size in sizes.items() if parameters[name].kind == "param")
    moments = 2 if training.optimiser == "adamw" else int(training.momentum > 0)
    return sum(sizes.values()) + trained * (1 + moments)


def part_of(name: str) -> ModelPart:
    """By the first component of a tensor's name, which every net follows."""
    return _PARTS.get(name.split(".", 1)[0], "trunk")


def _spec(layer: str, *shape: int) -> Spec:
    return Spec(shape, layer=layer, part=part_of(layer))


def _drawn(specs: Mapping[str, Spec], rng: "np.random.Generator") -> Weights:
    fan_in = {spec.layer: spec.shape[1] for spec in specs.values() if len(spec.shape) == 2}
    found = {n: fan_in_uniform(rng, s.shape, fan_in[s.layer]) for n, s in specs.items() if s.layer in fan_in}
    graph = {name: np.zeros(spec.shape, np.uint8) for name, spec in specs.items() if name == GRAPH}
    return Weights({**graph, **found}, {name: spec.kind for name, spec in specs.items()})


def _net_describer() -> Any:  # Any: its types are torch's, which this module does not import
    return importlib.import_module("common.nets._describe")
