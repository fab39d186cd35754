"""Hierarchical mixture of experts: one small classifier per inner node of a class taxonomy, a few trained a round.

Source: Kim and Choi, Hierarchical Mixture-of-Experts for Edge Device in Federated Learning, section 3.
Deviation: none by default. Ours are all schedules but `round_robin`, a start from the parent's expert, linear experts
    on a frozen trunk, softmax over the classes below a node, temperatures, decoders but `greedy`, and growth (`only`).

Down go the experts to be trained, for evaluation the whole tree; each is a payload of its own, so that a device which
has one is not sent it again. Up come those trained, with the samples behind each. The others stay the same bits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from common import expert_outputs, expert_schedule
from common import experts as ex
from common.average import means_by_node
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Skip, Step
from common.payloads import Payload, Weights
from common.samples import Samples

PREDICT_ONLY = ("temperatures",)
Plan = Iterator[tuple[AgentInfo, "Task"]]


@dataclass(frozen=True)
class Config:
    schedule: Literal["round_robin", "breadth_first", "proportional", "resource_aware"] = "round_robin"
    experts_per_round: int = 1
    rounds_each: int = 1  # breadth_first: of a node before those below it; proportional: of each before any more
    init: Literal["random", "parent"] = "random"
    trunk: Literal["own", "shared_frozen"] = "own"
    targets: Literal["children", "leaves"] = "children"
    widths: ex.Widths = field(default_factory=ex.Widths)
    anneal_over: int = 0  # rounds of an expert in which its lr falls to 0 by a cosine; 0: it stays the optimiser's
    least_steps: int = 1  # of an epoch, by smaller batches where an agent has few samples under a node
    decode: tuple[expert_outputs.Decoder, ...] = ("greedy", "product")
    beam_width: int = 3
    calibrate: bool = False  # one more step in the last round
    only: tuple[str, ...] = ()  # train the experts of these nodes alone

    def __post_init__(self) -> None:
        ex.check_config(self)


@dataclass(frozen=True)
class State:
    experts: dict[str, Weights]
    trained: dict[str, int]  # steps that changed the expert
    untouched: tuple[str, ...]  # nodes whose expert is still its first draw
    model_bytes: dict[str, int]  # of one expert's training
    temperatures: dict[str, float]
    trunk: Weights | None


@dataclass(frozen=True)
class Task:
    kind: Literal["train", "calibrate", "use"]
    experts: dict[str, Weights]
    trunk: Weights | None
    temperatures: dict[str, float] = field(default_factory=dict)
    lr: dict[str, float] = field(default_factory=dict)  # shares of the optimiser's


@dataclass(frozen=True)
class Reply:
    experts: dict[str, Weights] = field(default_factory=dict)
    n_samples: dict[str, int] = field(default_factory=dict)
    losses: dict[str, tuple[float, ...]] = field(default_factory=dict)  # of a calibration, instead


@dataclass(frozen=True)
class Memory:
    pass


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    family = ex.family_of(run)
    ex.check_named(family.tree, run.config.only, "[method] only")
    trunk = ex.trunk_of(model, start, run.training.objective) if family.on_trunk else None
    experts, untouched = ex.first(family, model, start, rng)
    sizes = ex.training_bytes(family, model, experts, run.training)
    return State(experts, dict.fromkeys(experts, 0), untouched, sizes, dict.fromkeys(experts, 1.0), trunk)


def phases(run: RunSpec[Config], round_number: int) -> tuple[str, ...]:
    return ("train", "calibrate") if run.config.calibrate and round_number == run.rounds else ("train",)


def plan(run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step) -> Plan:
    tree, config = ex.family_of(run).tree, run.config
    ex.check_nodes(tree, state.experts, run, whole=True)
    if step.phase == "calibrate":
        task = Task("calibrate", state.experts, state.trunk)
        yield from ((agent, task) for agent in agents)
        return
    wanted = {node: state.trained[node] for node in tree.children if not config.only or node in config.only}
    demand = expert_schedule.Demand(wanted, state.model_bytes)
    shares = expert_schedule.shares(config, tree, demand, agents, step.round)
    sent = ex.warmed(tree, state.experts, state.untouched if config.init == "parent" else ())
    lr = {node: expert_schedule.annealed(n, config.anneal_over) for node, n in wanted.items()}
    tasks = {s: Task("train", {v: sent[v] for v in s}, state.trunk, {}, {v: lr[v] for v in s}) for s in shares.values()}
    yield from ((agent, tasks[shares[agent.name]]) for agent in agents if agent.name in shares)


def plan_evaluation(run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step) -> Plan:
    task = Task("use", state.experts, state.trunk, state.temperatures)
    yield from ((agent, task) for agent in agents)


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    family = ex.family_of(site.run)
    ex.check_nodes(family.tree, task.experts, site.run, whole=False)
    if task.kind == "calibrate":
        losses = dict(expert_outputs.losses(family, task.experts, task.trunk, site))
        if not losses:
            raise Skip("no held-out samples to calibrate with: [data] holdout is their share")
        return Reply(losses=losses), memory
    done = list(ex.trained(family, task.experts, task.trunk, task.lr, site))  # of all, when an evaluation fine-tunes
    if not done:
        raise Skip(f"no samples under {', '.join(map(repr, list(task.experts)[:5]))}")
    return Reply({v: w for v, _, w in done}, {v: n for v, n, _ in done}), memory


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    if step.phase == "calibrate":
        found = expert_outputs.temperatures(((a.name, r.losses) for a, r in replies), state.experts)
        return replace(state, temperatures={**state.temperatures, **found})
    parts = ((a.name, v, r.n_samples.get(v, 0), weights) for a, r in replies for v, weights in r.experts.items())
    means = means_by_node(parts, like=state.experts)
    trained = {node: n + (node in means) for node, n in state.trained.items()}
    untouched = tuple(node for node in state.untouched if node not in means)
    return replace(state, experts={**state.experts, **means}, trained=trained, untouched=untouched)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    """The first decoder's reading is "model", the others have their own names. A part of a tree predicts nothing."""
    if task.kind != "use":
        return {}
    family, config = ex.family_of(site.run), site.run.config
    experts = {**task.experts, **(reply.experts if reply else {})}
    ask = expert_outputs.outputs(family, experts, task.temperatures, task.trunk, site, inputs)
    return expert_outputs.readings(family.tree, ask, config.decode, config.beam_width, site, inputs)


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    trunk = {"trunk": state.trunk} if state.trunk else {}
    return {**state.experts, **trunk, "outputs": ex.outputs_table(ex.family_of(run))}
