"""FedProto: every agent trains a model of its own; class means of its embedding are all that is exchanged.

Source: Tan et al., FedProto: Federated Prototype Learning across Heterogeneous Clients, AAAI 2022, algorithm 1.
Deviation: see `common/prototypes.py` (weights, clean pass, absent classes); the regulariser is ||h(x) - g||^2 summed
    over dimensions, where the released code's mean over them makes lambda a number of the embedding's size. All agents
    start from the same first model unless `start = "own"`.

Down go the common class means, up the agent's own. The model stays in Memory. The main reading is the nearest mean;
`head` is the model's own head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from common import personal, prototypes
from common.errors import ConfigError
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Step
from common.methods.fedavg import some_samples
from common.payloads import Payload, Prototypes, Weights
from common.prototypes import Known, Privacy, Weighting
from common.samples import Samples


@dataclass(frozen=True)
class Config:
    strength: float = 1.0  # lambda
    weighting: Weighting = "weighted"
    start: Literal["common", "own"] = "common"
    max_age: int = 0  # steps that a mean nobody renews is kept; 0: for ever
    privacy: Privacy = field(default_factory=Privacy)

    def __post_init__(self) -> None:
        if self.strength < 0 or self.max_age < 0:
            raise ValueError(f"strength and max_age must not be negative, got {self.strength}, {self.max_age}")


@dataclass(frozen=True)
class State:
    known: Known
    first: Weights | None
    dim: int  # of the embedding


@dataclass(frozen=True)
class Task:
    prototypes: Prototypes | None
    first: Weights | None


@dataclass(frozen=True)
class Reply:
    prototypes: Prototypes | None


@dataclass(frozen=True)
class Memory:
    weights: Weights | None = None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    prototypes.check_run(run)
    weights, dim = personal.first_weights(model, start, rng), width(model.parameters())
    return State(Known(), weights if run.config.start == "common" else None, dim)


def width(parameters: Mapping[str, Any]) -> int:
    """Of the embedding that the head, or the adapter, gives."""
    for name, axis in (("classifier.weight", 1), ("adapter.fc2.weight", 0)):
        if name in parameters:
            return int(parameters[name].shape[axis])
    raise ConfigError("class means need an embedding that is trained: a model with a head, or with adapter = true")


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    task = Task(state.known.prototypes, state.first)
    for agent in agents:
        yield agent, task


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    config, samples, learner = site.run.config, some_samples(site), _learner(site)
    terms = prototypes.regulariser(task.prototypes, config.strength)
    start = personal.whole(site, learner, [task.first, memory.weights])
    trained = learner.fit(start, samples, site.training, terms=terms, rng=site.rng).weights
    own = prototypes.class_means(learner.embed(trained, samples), samples.labels, config.privacy, site.rng)
    return Reply(own), Memory(trained)


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    n_classes = None if run.classes is None else len(run.classes)
    merging = prototypes.Merging(state.dim, n_classes, run.config.weighting)
    for agent, reply in replies:
        merging.add(agent.name, reply.prototypes)
    return State(merging.merged(state.known, max_age=run.config.max_age), state.first, state.dim)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner = _learner(site)
    weights = personal.whole(site, learner, [task.first, memory.weights])
    near = prototypes.nearest(learner.embed(weights, inputs), task.prototypes, len(site.classes))
    return {"personal": near, "head": learner.scores(weights, inputs)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    return {} if state.known.prototypes is None else {"prototypes": state.known.prototypes}


def _learner(site: Site[Any]) -> Learner:
    return site.learner(terms=("prototypes",))
