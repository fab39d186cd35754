"""FedSimCLR: agents pre-train one common backbone on images without labels, the server averages it.

Source: Chen et al., SimCLR, ICML 2020 (the objective); its federated form as in Zhuang et al., FedEMA, ICLR 2022, whose
    mixing is `mixing` (equations 4 to 6); aggregation "l_dawa": Rehman et al., L-DAWA, ICCV 2023, equation 5.
Deviation: L-DAWA's factors are divided by their sum, for otherwise they shrink the weights; each tensor is a layer;
    factors below 0 count as 0, and buffers are averaged plainly. FedEMA's distance is over all parameters.

Down goes the common backbone with the objective's projection head, up the trained one; the projection head is left out
of the result. Batch norm: "average" its statistics too, "local" keep its layers with the agent (FedBN), "re-estimated"
average, and look at the common model with statistics taken anew from the agent's own images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from common import batch_norm, knn, personal
from common.average import check_like, means_by_node, weighted_mean
from common.errors import ConfigError
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Skip, Spec, Step
from common.methods import fedavg
from common.methods.fedavg import Reply, State, Task, plan
from common.models import part_of
from common.payloads import Array, Payload, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    aggregation: Literal["fedavg", "uniform", "l_dawa"] = "fedavg"  # fedavg: by images; uniform: every agent alike
    bn: Literal["average", "local", "re-estimated"] = "average"
    mixing: float = 0.0  # FedEMA's tau: how much of its own weights an agent keeps, at first; 0: none
    neighbours: int = 20  # of the kNN reading, among the agent's labelled images
    temperature: float = 0.1  # of their votes

    def __post_init__(self) -> None:
        if not 0 <= self.mixing <= 1 or self.neighbours < 1 or self.temperature <= 0:
            raise ValueError(
                f"expected mixing in [0, 1], neighbours >= 1 and temperature > 0, "
                f"got {self.mixing}, {self.neighbours} and {self.temperature}"
            )


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None  # batch norm's layers with bn = "local"
    last: Weights | None = None  # what was trained last, with mixing
    scale: float = 0.0  # FedEMA's lambda, fixed when the agent first mixes


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    if not any(spec.part == "objective" for spec in model.parameters().values()):
        raise ConfigError(
            "fedsimclr trains without labels, under an objective with a projection head: set [objective] name = "
            f"'simclr', got {run.training.objective!r}"
        )
    if run.training.batch < 2:
        raise ConfigError(f"contrast needs two images in a batch: raise [optimiser] batch, got {run.training.batch}")
    weights, parameters = personal.first_weights(model, start, rng), model.parameters()
    return fedavg.split(weights.without(personal.head(parameters)), _kept(run, parameters), ())


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    images, learner = site.data.unlabelled, site.learner(n_classes=0)
    if len(images) < 2:
        raise Skip(f"contrast needs at least two images, this agent has {len(images)}")
    common, scale = _mixed(task.weights, memory, site.run.config.mixing)
    start = personal.whole(site, learner, [common, task.first, memory.own])
    trained = learner.fit(start, images, site.training, rng=site.rng).weights
    reply, kept = fedavg.parted(trained, _kept(site.run, learner.parameters()), len(images))
    return reply, Memory(kept.own, reply.weights if site.run.config.mixing else None, scale)


def _mixed(common: Weights, memory: Memory, mixing: float) -> tuple[Weights, float]:
    """mu own + (1 - mu) common, with mu = min(lambda d, 1) and d the distance of the two; mu = mixing at first."""
    last = memory.last
    if not mixing or last is None:
        return common, memory.scale
    params = [name for name in common if common.kind(name) == "param"]
    apart = [np.subtract(last[name], common[name], dtype=np.float64) for name in params]
    distance = float(np.sqrt(sum(float((gap * gap).sum()) for gap in apart)))
    scale = memory.scale or (mixing / distance if distance else 0.0)
    share = min(scale * distance, 1.0)
    arrays: dict[str, Array] = {}
    for name, gap in zip(params, apart, strict=True):
        arrays[name] = np.add(common[name], share * gap, dtype=np.float64).astype(common[name].dtype)
    return common.updated(arrays), scale


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    if run.config.aggregation == "l_dawa":
        return State(_by_likeness(replies, state.weights), state.first)
    by_images = run.config.aggregation == "fedavg"
    parts = ((agent.name, reply.n_samples if by_images else 1.0, reply.weights) for agent, reply in replies)
    return State(weighted_mean(parts, like=state.weights), state.first)


def _by_likeness(replies: Iterator[tuple[AgentInfo, Reply]], like: Weights) -> Weights:
    """Each tensor's mean over agents, weighted by the cosine of its angle to the common one before."""

    def parts() -> Iterator[tuple[str, str, float, Weights]]:
        for agent, reply in replies:
            check_like(agent.name, reply.weights, like)
            for name, array in like.items():
                mass = _cosine(reply.weights[name], array) if like.kind(name) == "param" else 1.0
                yield agent.name, name, max(mass, 0.0), reply.weights.only([name])

    means = means_by_node(parts(), {name: like.only([name]) for name in like})
    return like.updated({name: mean[name] for name, mean in means.items()})


def _cosine(a: Array, b: Array) -> float:
    x, y = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    sizes = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / sizes if sizes else 1.0  # against zeros there is no angle


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    """Votes of the nearest labelled images of the agent: a monitor, nothing is trained for it."""
    learner, config, known = site.learner(n_classes=0), site.run.config, site.data.train
    trained = reply.weights if reply else None
    weights = personal.whole(site, learner, [task.weights, task.first, memory.own, trained])
    if config.bn == "re-estimated":
        weights = batch_norm.re_estimated(site, learner, weights, site.data.unlabelled)
    queries, bank = learner.embed(weights, inputs), learner.embed(weights, known)
    k, t = config.neighbours, config.temperature
    return {"knn": knn.scores(queries, bank, known.labels, len(site.classes), k=k, temperature=t)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    backbone = state.weights if state.first is None else state.weights.updated(state.first)
    return {"weights": backbone.without(name for name in backbone if part_of(name) == "objective")}


def _kept(run: RunSpec[Config], parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    return personal.batch_norm(parameters, "local" if run.config.bn == "local" else "average")
