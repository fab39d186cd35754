"""PromptFL: agents learn one common prompt in front of the class names, the server averages it.

Source: Guo et al., PromptFL: Let Federated Participants Cooperatively Learn Prompts Instead of Models, IEEE TMC 2023.
Deviation: agents are weighted by training samples (`weighting = "uniform"` as in the released code); the prompt alone
    is sent, never the encoder; every agent starts each round with a fresh optimiser.

Down goes the prompt, up comes the trained one; nothing is personal.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import personal, prompts, prototypes
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Step
from common.methods.fedavg import some_samples
from common.payloads import Payload, Prompt
from common.samples import Samples

MODEL = "prompted"  # the only one that it works on


@dataclass(frozen=True)
class Config:
    weighting: prototypes.Weighting = "weighted"


@dataclass(frozen=True)
class State:
    prompt: Prompt


@dataclass(frozen=True)
class Task:
    prompt: Prompt


@dataclass(frozen=True)
class Reply:
    prompt: Prompt
    n_samples: int


@dataclass(frozen=True)
class Memory:
    pass


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    return State(prompts.first_prompt(model, start, rng, "promptfl"))


def plan(
    run: RunSpec[Any], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    task = Task(state.prompt)
    for agent in agents:
        yield agent, task


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, learner = some_samples(site), site.learner()
    start = personal.whole(site, learner, [prompts.weights_of(task.prompt)])
    trained = learner.fit(start, samples, site.training, trainable=(prompts.CONTEXT,), rng=site.rng).weights
    return Reply(prompts.prompt_of(trained), len(samples)), memory


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    return State(averaged(run.config.weighting, state, replies))


def averaged(weighting: prototypes.Weighting, state: State, replies: Iterator[tuple[AgentInfo, Reply]]) -> Prompt:
    def mass(reply: Reply) -> int:
        return reply.n_samples if weighting == "weighted" else min(1, reply.n_samples)

    return prompts.mean_prompt(((agent.name, mass(r), r.prompt) for agent, r in replies), like=state.prompt)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner, trained = site.learner(), reply.prompt if reply else None
    weights = personal.whole(site, learner, [prompts.weights_of(task.prompt), prompts.weights_of(trained)])
    return {"model": learner.scores(weights, inputs)}


def result(run: RunSpec[Any], state: State) -> dict[str, Payload]:
    return {"prompt": state.prompt}
