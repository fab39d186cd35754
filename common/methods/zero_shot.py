"""Zero-shot: the encoder's own scores for the data set's sentence; nothing is learned, nothing is sent.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, section 3.1.
Deviation: one sentence a class, no ensemble of templates.

The row that learned prompts must beat. Every agent is asked and answers, so that its cost is measured too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from common import prompts
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Step
from common.payloads import Payload, Weights
from common.samples import Samples

MODEL = "prompted"  # the only one that it works on


@dataclass(frozen=True)
class Config:
    pass


@dataclass(frozen=True)
class State:
    pass


@dataclass(frozen=True)
class Task:
    pass


@dataclass(frozen=True)
class Reply:
    pass


@dataclass(frozen=True)
class Memory:
    pass


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    prompts.check_model(model.parameters(context=1), "zero_shot")  # the model's own context is of no use to it
    return State()


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    for agent in agents:
        yield agent, Task()


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    return Reply(), memory


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    return state


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    return {"model": site.learner(context=0, adapter=False).scores(Weights({}), inputs)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    return {}
