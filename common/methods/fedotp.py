"""FedOTP: a common prompt and one of the agent's own; optimal transport matches both with the places of an image.

Source: Li et al., Global and Local Prompts Cooperation via Optimal Transport for Federated Learning, CVPR 2024: two
    prompts, unbalanced transport with the prompts' mass fixed; no regulariser.
Deviation: a fixed number of iterations in the log domain (`common/nets/_transport.py`); an agent that has never
    trained has its own first draw, never another agent's prompt.

Down goes the common prompt, up the trained one; the own prompt stays in Memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import personal, prompts
from common.errors import ConfigError
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Step
from common.methods import promptfl
from common.methods.fedavg import some_samples
from common.methods.promptfl import Reply, State, Task, plan, result
from common.payloads import Payload, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]
MODEL = "prompted"  # the only one that it works on


@dataclass(frozen=True)
class Config:
    mass: float = 0.8  # gamma: the share of an image that its class's prompts must explain
    smoothing: float = 0.1  # epsilon
    iterations: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.mass <= 1 or self.smoothing <= 0 or self.iterations < 1:
            raise ValueError(
                f"expected 0 < mass <= 1, smoothing > 0 and iterations >= 1, "
                f"got {self.mass}, {self.smoothing}, {self.iterations}"
            )


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    if run.model.options.get("features") != "dense":
        raise ConfigError("fedotp matches prompts with the places of an image: it needs [model] features = 'dense'")
    return State(prompts.first_prompt(model, start, rng, "fedotp"))


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, learner = some_samples(site), _learner(site)
    start = personal.whole(site, learner, [prompts.weights_of(task.prompt), memory.own])
    trained = learner.fit(start, samples, site.training, rng=site.rng).weights
    return Reply(prompts.prompt_of(trained), len(samples)), Memory(prompts.own_part(trained))


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    return State(promptfl.averaged("weighted", state, replies))


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner, trained = _learner(site), reply.prompt if reply else None
    parts = [prompts.weights_of(task.prompt), prompts.weights_of(trained), memory.own]
    return {"personal": learner.scores(personal.whole(site, learner, parts), inputs)}


def _learner(site: Site[Any]) -> Learner:
    config = site.run.config
    return site.learner(own=True, mass=config.mass, smoothing=config.smoothing, iterations=config.iterations)
