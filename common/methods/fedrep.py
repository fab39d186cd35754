"""FedRep: an agent fits its own head to the common trunk, then improves the trunk under that head.

Source: Collins et al., Exploiting Shared Representations for Personalized Federated Learning, ICML 2021, algorithm 1:
    many steps on the head with the representation fixed, then few on the representation with the head fixed.
Deviation: all agents start from the same first head. The run's epochs train the head, `body_epochs` the trunk.

Down goes the common trunk, up the trained one; the first head goes down once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from common import personal
from common.method import Model, RunSpec, Scores, Site
from common.methods import fedavg
from common.methods.fedavg import Memory, Reply, State, Task, merge, plan, result
from common.payloads import Payload
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    body_epochs: int = 1
    bn: personal.BatchNorm = "average"

    def __post_init__(self) -> None:
        if self.body_epochs < 0:
            raise ValueError(f"body_epochs must not be negative, got {self.body_epochs}")


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    weights, parameters = personal.first_weights(model, start, rng), model.parameters()
    kept = personal.head(parameters) + personal.batch_norm(parameters, run.config.bn)
    return fedavg.split(weights, kept, personal.own_head(run, parameters))


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, learner, config = fedavg.some_samples(site), site.learner(), site.run.config
    parameters = learner.parameters()
    head = personal.head(parameters)
    body = [name for name, spec in parameters.items() if name not in head and spec.kind == "param"]
    weights = personal.whole(site, learner, [task.weights, task.first, memory.own])
    weights = learner.fit(weights, samples, site.training, trainable=head, rng=site.rng).weights
    on_body = replace(site.training, epochs=config.body_epochs, steps=None)
    if body:
        weights = learner.fit(weights, samples, on_body, trainable=body, rng=site.rng).weights
    return fedavg.parted(weights, head + personal.batch_norm(parameters, config.bn), len(samples))


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    return {"personal": fedavg.scores(task, reply, memory, site, inputs)}
