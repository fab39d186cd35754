"""What a method is made of: the types that its functions take and give.

A method is one module in `common/methods/` with both halves of the algorithm, in the order the data flows:

    class Config, State, Task, Reply, Memory                          frozen dataclasses of the module
    init(run, model, start, rng) -> State                             server, once
    plan(run, state, agents, step) -> Iterator[(AgentInfo, Task)]     server, once per step
    work(task, memory, site) -> (Reply, Memory)                       agent; may raise Skip
    merge(run, state, replies, step) -> State                         server; replies sorted by agent name
    predict(task, reply, memory, site, inputs) -> {reading: scores}   agent; scores (n, n_classes), reply may be None
    result(run, state) -> {name: payload}                             what export writes and `init_from` reads

and, where it needs them, `phases(run, round)`, `plan_evaluation(run, state, agents, step)` and `KEEP_REFUSED`.
`plan` and `predict` are pure. What the server decides arrives in the Task or the RunSpec; Memory never leaves its
agent. Adding a method edits no other file. docs/adr/0001 says why functions over explicit state.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.encoding import as_received
from common.payloads import Array, Encoding, Kind, Payload, Weights
from common.samples import Samples

C = TypeVar("C")
Scalar = bool | int | float | str
ModelPart = Literal["trunk", "head", "objective", "prompt", "adapter"]
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Spec:
    """One tensor of a model. `layer` groups tensors for methods that work by layer, `part` for those that split."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    kind: Kind = "param"
    layer: str = ""
    part: ModelPart = "trunk"


@dataclass(frozen=True)
class ModelSpec:
    """A model by name, with its options (`width = 16`)."""

    name: str
    options: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """One round's numbers, all schedules resolved. `steps`, when given, ends training before `epochs` does."""

    objective: str = "cross_entropy"
    objective_options: Mapping[str, Scalar] = field(default_factory=dict)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batch: int = 32
    epochs: int = 1
    steps: int | None = None


@dataclass(frozen=True)
class Term:
    """A regulariser added to any objective, by name: "proximal", "prototypes", …

    `arrays` is what it needs: the anchor weights of "proximal" under their own names, say.
    """

    name: str
    strength: float
    arrays: Mapping[str, Array]


@dataclass(frozen=True)
class Encodings:
    up: Encoding = "float32"
    down: Encoding = "float32"


@dataclass(frozen=True)
class RunSpec(Generic[C]):
    """A run as both sides see it in one round: every schedule resolved for that round."""

    name: str
    method: str
    config: C
    model: ModelSpec
    training: Training
    rounds: int
    seed: int
    head: Literal["run", "agent"] = "run"
    classes: tuple[str, ...] | None = None  # None: each agent brings its own
    taxonomy: tuple[tuple[str, str], ...] | None = None  # (parent, child) edges
    encodings: Encodings = Encodings()

    def up(self, payload: Any) -> Any:  # Any: gives back the type that it was given
        """The payload as the server will decode it when an agent sends it."""
        return as_received(payload, self.encodings.up)

    def down(self, payload: Any) -> Any:
        """The payload as an agent will decode it when the server sends it."""
        return as_received(payload, self.encodings.down)


@dataclass(frozen=True)
class Step:
    """One plan + merge. `number` counts all steps of the run from 0; a round has the steps that `phases` names."""

    round: int  # from 1
    phase: str
    number: int
    rng: "np.random.Generator"


@dataclass(frozen=True)
class DataFacts:
    """What an agent says about its data; `counts` (training samples per class) only when its owner shares them."""

    name: str
    n_classes: int
    classes_sha256: str  # hex
    n_train: int
    n_test: int
    n_unlabelled: int = 0
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SpanReport:
    """What one named span of an agent's work cost, as measured on the device."""

    name: str
    step: int
    seconds: float
    rss_peak_delta_bytes: int
    n_samples: int
    data_bytes: int
    model_bytes: int


@dataclass(frozen=True)
class AgentInfo:
    """An agent as `plan` sees it.

    `memory_step` is the last merged step whose Memory the agent holds, -1 for none. `reports` has the latest
    report of each span name ("train" for the whole task), so it stays small however long the run is.
    """

    name: str
    data: DataFacts
    tags: tuple[str, ...] = ()
    memory_bytes: int | None = None  # budget
    time_s: float | None = None  # budget per task
    memory_step: int = -1
    reports: tuple[SpanReport, ...] = ()


class Skip(Exception):
    """Raised by `work` when this agent has nothing to do in this step; the reason is shown to the operator."""


@dataclass(frozen=True)
class Fitted:
    """What training gave: weights, mean loss per sample over the last epoch, and optimiser steps taken."""

    weights: Weights
    loss: float
    n_steps: int


class Model(Protocol):
    """Shapes and first weights of a model; the only view of it that `init` has."""

    def parameters(self, **variant: Scalar) -> dict[str, Spec]: ...

    def initial(self, rng: "np.random.Generator", **variant: Scalar) -> Weights: ...


class Learner(Protocol):
    """Trains and applies one model variant. No hidden weights: arrays in, arrays out."""

    n_classes: int

    def parameters(self) -> dict[str, Spec]: ...

    def initial(self, rng: "np.random.Generator") -> Weights: ...

    def fit(
        self,
        weights: Weights,
        samples: Samples,
        training: Training,
        *,
        terms: tuple[Term, ...] = (),
        trainable: Iterable[str] | None = None,
        rng: "np.random.Generator",
    ) -> Fitted:
        """Train from `weights`; only `trainable` tensors move when given. Buffers follow the model's own rule."""
        ...

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        """Logits, (n, n_classes)."""
        ...

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        """Features of that layer, (n, dim)."""
        ...

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        """Mean gradient of the objective over the samples, for every param tensor; no step is taken."""
        ...


class SiteData(Protocol):
    """The views of an agent's data. `holdout` is cut from the training part, fixed per run, never trained on."""

    @property
    def train(self) -> Samples: ...
    @property
    def holdout(self) -> Samples: ...
    @property
    def test(self) -> Samples: ...
    @property
    def unlabelled(self) -> Samples: ...


class Site(Protocol[C]):
    """What an agent works with in one task."""

    run: RunSpec[C]
    training: Training
    classes: tuple[str, ...]  # the run's, or the agent's own with head = "agent"
    data: SiteData
    rng: "np.random.Generator"

    def learner(self, *, model: str | None = None, terms: tuple[str, ...] = (), **variant: Scalar) -> Learner:
        """A learner for a variant; `n_classes` defaults to len(classes). Loss-space terms are named here."""
        ...

    def initial(self, learner: Learner, part: ModelPart | None = None) -> Weights:
        """The agent's own first draw of these tensors: the same in every round and in `predict`."""
        ...

    def span(self, name: str, n_samples: int) -> AbstractContextManager[None]:
        """Meter a named part of the work (one per expert, say)."""
        ...

    def count(self, name: str, n: float) -> None:
        """Add to a number that is reported with the reply."""
        ...


class Method(Protocol):
    """A method's module, as the engine and the agent see it. Records are of types only the module knows: Any."""

    Config: type
    State: type
    Task: Any  # a class, or a union of classes
    Reply: type
    Memory: type

    def init(
        self, run: RunSpec[Any], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator"
    ) -> Any: ...

    def plan(
        self, run: RunSpec[Any], state: Any, agents: tuple[AgentInfo, ...], step: Step
    ) -> Iterator[tuple[AgentInfo, Any]]: ...

    def work(self, task: Any, memory: Any, site: Site[Any]) -> tuple[Any, Any]: ...

    def merge(self, run: RunSpec[Any], state: Any, replies: Iterator[tuple[AgentInfo, Any]], step: Step) -> Any: ...

    def predict(self, task: Any, reply: Any, memory: Any, site: Site[Any], inputs: Samples) -> dict[str, Scores]: ...

    def result(self, run: RunSpec[Any], state: Any) -> dict[str, Payload]: ...
