"""LG-FedAvg: every agent has a trunk of its own, the head is common and averaged.

Source: Liang et al., Think Locally, Act Globally: Federated Learning with Local and Global Representations, 2020,
    algorithm 1, without the auxiliary self-supervised loss; the global part is the model's head.
Deviation: all agents start from the same first trunk, as they do in the paper's released code.

Down goes the common head, up the trained one; the first trunk goes down once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common import personal
from common.errors import ConfigError
from common.method import Model, RunSpec, Scores, Site, Spec
from common.methods import fedavg
from common.methods.fedavg import Memory, Reply, State, Task, merge, plan, result
from common.payloads import Payload
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    pass


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    if run.head == "agent":
        raise ConfigError("lg_fedavg shares nothing but the head: it needs [model] head = 'run', got 'agent'")
    return fedavg.split(personal.first_weights(model, start, rng), _trunk(model.parameters()), ())


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, learner = fedavg.some_samples(site), site.learner()
    start = personal.whole(site, learner, [task.weights, task.first, memory.own])
    trained = learner.fit(start, samples, site.training, rng=site.rng).weights
    return fedavg.parted(trained, _trunk(learner.parameters()), len(samples))


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    return {"personal": fedavg.scores(task, reply, memory, site, inputs)}


def _trunk(parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    head = personal.head(parameters)
    return tuple(name for name in parameters if name not in head)
