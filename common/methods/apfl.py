"""APFL: every agent mixes a model of its own with the common one, and learns the share.

Source: Deng et al., Adaptive Personalized Federated Learning, 2020, algorithm 1: in lockstep, w by the gradient at w
    and v by the gradient at the mix alpha v + (1 - alpha) w; eq. 11 for alpha.
Deviation: alpha moves once a task, at its end, with the gradient over all training samples (the paper: once a round);
    v starts from the common model at the agent's first task. SGD is written out here, because the two models move
    together; so models with running statistics are refused.

On the wire it is FedAvg with w; v and alpha stay in Memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common import orders, personal
from common.errors import ConfigError
from common.method import Learner, Model, RunSpec, Scores, Site, Training
from common.methods import fedavg
from common.methods.fedavg import Reply, State, Task, merge, plan, result
from common.payloads import Array, Payload, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    alpha: float = 0.5  # the first share of the own model
    adaptive: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha}")


@dataclass(frozen=True)
class Memory:
    common: fedavg.Memory = field(default_factory=fedavg.Memory)
    own: Weights | None = None
    alpha: float | None = None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    statistics = [name for name, spec in model.parameters().items() if spec.kind != "param"]
    if statistics or run.training.optimiser != "sgd" or run.training.nesterov:
        nesterov = ", nesterov" if run.training.nesterov else ""
        got = f"tensor {statistics[0]!r}" if statistics else f"optimiser {run.training.optimiser}{nesterov}"
        raise ConfigError(f"apfl needs a model without running statistics and plain or heavy-ball sgd, got {got}")
    head = personal.own_head(run, model.parameters())
    return fedavg.split(personal.first_weights(model, start, rng), head, head)


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, learner, training = fedavg.some_samples(site), site.learner(), site.training
    w = personal.whole(site, learner, [task.weights, task.first, memory.common.own])
    v, alpha = _own(w, memory, site)
    speeds: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
    for _, places in orders.batches(len(samples), training, site.rng):
        batch = samples.take(places)
        at_w = learner.gradients(w, batch, training.objective)
        at_mix = learner.gradients(mixed(v, w, alpha), batch, training.objective)
        w = _moved(w, at_w, 1.0, speeds[0], training)
        v = _moved(v, at_mix, alpha, speeds[1], training)
    if site.run.config.adaptive:
        alpha = _adapted(alpha, v, w, learner, samples, training)
    site.count("alpha", alpha)
    head = personal.own_head(site.run, learner.parameters())
    reply, common = fedavg.parted(w, head, len(samples))
    return reply, Memory(common, v, alpha)


def mixed(v: Weights, w: Weights, alpha: float) -> Weights:
    a, rest = np.float32(alpha), np.float32(1 - alpha)
    return Weights(
        {name: a * v[name].astype(np.float32) + rest * array.astype(np.float32) for name, array in w.items()}
    )


def _moved(weights: Weights, gradients: Weights, share: float, speed: dict[str, Array], training: Training) -> Weights:
    """One step of SGD; `speed` holds the momentum from step to step of one task."""
    moved: dict[str, Array] = {}
    for name, array in weights.items():
        at = array.astype(np.float32)
        pull = np.float32(share) * gradients[name].astype(np.float32) + np.float32(training.weight_decay) * at
        before = speed[name].astype(np.float32) if name in speed else np.float32(0)
        speed[name] = np.asarray(np.float32(training.momentum) * before + pull)
        moved[name] = at - np.float32(training.lr) * speed[name].astype(np.float32)
    return Weights(moved, weights.kinds)


def _adapted(alpha: float, v: Weights, w: Weights, learner: Learner, samples: Samples, training: Training) -> float:
    gradient = learner.gradients(mixed(v, w, alpha), samples, training.objective)
    slope = sum(
        float(np.vdot(v[n].astype(np.float64) - w[n].astype(np.float64), gradient[n].astype(np.float64))) for n in w
    )
    return min(1.0, max(0.0, alpha - training.lr * slope))


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner, trained = site.learner(), reply.weights if reply else None
    w = personal.whole(site, learner, [task.weights, task.first, memory.common.own, trained])
    v, alpha = _own(w, memory, site)
    return {"personal": learner.scores(mixed(v, w, alpha), inputs), "model": learner.scores(w, inputs)}


def _own(w: Weights, memory: Memory, site: Site[Any]) -> tuple[Weights, float]:
    alpha = site.run.config.alpha if memory.alpha is None else memory.alpha
    return (w if memory.own is None else w.updated(memory.own)), alpha
