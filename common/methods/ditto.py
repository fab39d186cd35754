"""Ditto: FedAvg, and beside it every agent trains a model of its own that is held near the common one.

Source: Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021, algorithm 1: v_k
    minimises F_k(v) + lambda/2 ||v - w_t||^2 with w_t as it was sent.
Deviation: v_k starts from the common model at the agent's first task (w_0 in the paper).

On the wire it is FedAvg; the own model v stays in Memory. `strength` is lambda.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from common import personal
from common.method import Scores, Site, Term
from common.methods import fedavg
from common.methods.fedavg import Reply, State, Task, init, merge, plan, result
from common.payloads import Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    strength: float = 0.1
    own_epochs: int | None = None  # None: the run's
    bn: personal.BatchNorm = "average"

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength must be finite and at least 0, got {self.strength}")
        if self.own_epochs is not None and self.own_epochs < 1:
            raise ValueError(f"own_epochs must be at least 1, or left out for the run's, got {self.own_epochs}")


@dataclass(frozen=True)
class Memory:
    common: fedavg.Memory = field(default_factory=fedavg.Memory)
    own: Weights | None = None


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    config, training = site.run.config, site.training
    reply, common = fedavg.train(task, memory.common, site)
    if config.own_epochs is not None:
        training = replace(training, epochs=config.own_epochs, steps=None)
    anchor = {name: array for name, array in task.weights.items() if task.weights.kind(name) == "param"}
    terms = (Term("proximal", config.strength, anchor),) if config.strength else ()
    learner = site.learner()
    own = learner.fit(_own(task, memory, site), site.data.train, training, terms=terms, rng=site.rng).weights
    return reply, Memory(common, own)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], inputs: Samples) -> dict[str, Scores]:
    return {
        "personal": site.learner().scores(_own(task, memory, site), inputs),
        "model": fedavg.scores(task, reply, memory.common, site, inputs),
    }


def _own(task: Task, memory: Memory, site: Site[Any]) -> Weights:
    return personal.whole(site, site.learner(), [task.weights, task.first, memory.common.own, memory.own])
