"""Task heads: one backbone for agents with different tasks, a head for each task.

Source: linear evaluation and fine-tuning as in Chen et al., SimCLR, ICML 2020, section 4.2 and B.8, on agents.
Deviation: the backbone is frozen ("head"), tuned in its last stage ("last") or wholly ("all"); what is tuned stays with
    the agent or is averaged over all by samples. Heads belong to a task, the name of an agent's data, and are never
    averaged across tasks.

Down goes the backbone, the same bytes in every round, so once; what is averaged goes down and up. Under a frozen
backbone an agent computes its features once and trains its head on those.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from common import batch_norm, linear_head, personal, tuning
from common.average import means_by_node, weighted_mean
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Step
from common.methods import fedavg
from common.payloads import Payload, Weights
from common.samples import Samples

GROUP = "weights."  # in the names of a result's payloads, before that of an agent or task


@dataclass(frozen=True)
class Config:
    tune: tuning.Tune = "head"
    backbone: Literal["own", "average"] = "own"  # what is tuned of it
    heads: Literal["own", "average"] = "own"  # average: over the agents of one task
    bn: tuning.BatchNorm = "average"  # re-estimated: statistics of the agent's own images
    features: Literal["cached", "computed"] = "cached"  # of a frozen backbone; computed: in every epoch
    standardise: bool = True  # cached features, by their mean and deviation over the training samples


@dataclass(frozen=True)
class State:
    backbone: Weights
    groups: dict[str, Weights]  # instead of it, for an agent or a task
    tuned: Weights | None
    one: Weights  # a head of one class, which says what heads must look like; empty where none are sent
    heads: dict[str, Weights]
    classes: dict[str, str]  # of each task that was seen, the digest of its class list


@dataclass(frozen=True)
class Task:
    backbone: Weights
    tuned: Weights | None
    head: Weights | None


@dataclass(frozen=True)
class Reply:
    n_samples: int
    tuned: Weights | None
    head: Weights | None


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None
    classes: tuple[str, ...] = ()


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    parameters = model.parameters()
    tuning.check_objective(parameters, run.training.objective, on_features=_on_features(run.config))
    backbone = tuning.trunk(model, start.get("weights"), rng)
    common = tuning.shared(parameters, run.config.tune, run.config.bn) if run.config.backbone == "average" else ()
    groups = tuning.trunks(model, tuning.given(start, GROUP), rng, averaged=bool(common))
    one = tuning.one_class(model) if run.config.heads == "average" else Weights({})
    return State(backbone.without(common), groups, backbone.only(common) or None, one, *tuning.given_heads(start))


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    for agent in agents:
        backbone = state.groups.get(agent.name, state.groups.get(agent.data.name, state.backbone))
        yield agent, Task(backbone, state.tuned, state.heads.get(agent.data.name))


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, config, learner = fedavg.some_samples(site), site.run.config, site.learner()
    parameters, names = learner.parameters(), personal.head(learner.parameters())
    tuning.check_classes(memory.classes, site.classes)
    tuning.check_head(task.head, parameters, len(site.classes))
    backbone, head = _start(task, memory, site, learner)
    moving = [*names, *tuning.moving(parameters, config.tune)]
    if _on_features(config):
        trained = backbone.updated(linear_head.fitted(site, backbone, head, samples, standardise=config.standardise))
    else:
        trained = learner.fit(backbone.updated(head), samples, site.training, trainable=moving, rng=site.rng).weights
    sent = None if task.tuned is None else trained.only(task.tuned)
    shown = trained.only(names) if config.heads == "average" else None
    kept = {*moving, *tuning.own_norm(parameters, config.bn)} - {*(sent or ()), *(shown or ())}
    return Reply(len(samples), sent, shown), Memory(trained.only(kept) or None, site.classes)


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    classes = dict(state.classes)
    heads: list[tuple[str, str, float, Weights]] = []  # small beside the backbone

    def tuned() -> Iterator[tuple[str, float, Weights]]:
        for agent, reply in replies:
            tuning.check_task(agent, classes.setdefault(agent.data.name, agent.data.classes_sha256))
            if reply.head is not None:
                tuning.check_sent_head(agent, reply.head, state.one)
                heads.append((agent.name, agent.data.name, reply.n_samples, reply.head))
            yield agent.name, reply.n_samples, reply.tuned or Weights({})

    common = weighted_mean(tuned(), like=state.tuned or Weights({})) or None
    means = means_by_node(heads, {task: head for _, task, _, head in heads}) if heads else {}
    return replace(state, tuned=common, heads={**state.heads, **means}, classes=classes)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    seen = task if reply is None else replace(task, tuned=reply.tuned or task.tuned, head=reply.head or task.head)
    learner = site.learner()
    backbone, head = _start(seen, memory, site, learner)
    if not _on_features(site.run.config):
        return {"personal": learner.scores(backbone.updated(head), inputs)}
    return {"personal": linear_head.scores(site, backbone, head, inputs)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    found: dict[str, Payload] = {"weights": state.backbone.updated(state.tuned or {})}
    found |= {GROUP + group: weights for group, weights in state.groups.items()}
    return found | tuning.heads_as_payloads(state.heads, state.classes)


def _start(task: Task, memory: Memory, site: Site[Config], learner: Learner) -> tuple[Weights, Weights]:
    """The backbone, as it came where nothing of it is the agent's own, and the head."""
    parameters, own = learner.parameters(), memory.own or Weights({})
    names = personal.head(parameters)
    backbone = task.backbone.updated(task.tuned or {}).updated(own.without(names))
    whole = personal.whole(site, learner, [backbone, task.head, own])
    if site.run.config.bn == "re-estimated" and not any(own.kind(name) == "buffer" for name in own):
        statistics = batch_norm.re_estimated(site, learner, whole, site.data.unlabelled)
        backbone = backbone.updated(statistics.only(tuning.own_norm(parameters, site.run.config.bn)))
    return backbone, whole.only(names)


def _on_features(config: Config) -> bool:
    return config.tune == "head" and config.features == "cached"
