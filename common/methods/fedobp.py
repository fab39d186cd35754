"""FedOBP: a score for every parameter decides which few entries each agent keeps of its own earlier model.

Source: Federated Optimal Brain Personalization through Cloud-Edge Element-wise Decoupling, arXiv 2604.16574. With c
    the agent's model after its last training and g the common one: the score is |(c - g) c|; the agent starts from c
    where its score is above the q-quantile, else from g; all of it is trained, sent and averaged.
Deviation: an agent without an earlier upload starts from g alone (first_contact = "initial": from the first model, as
    in the authors' code); the running score advances with accepted replies only, never while evaluating; buffers and
    counters get no score; a tensor of equal scores does not break norm = "layer".

Down goes g, the same for all, and the personal entries, scored on the server: as packed bits if they are shorter and
the device still holds the c that was scored, else index and value (form = "values": always, and the device keeps
nothing); both give the same start, bit for bit. Up comes the whole model. score_on = "agent": down goes g alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from common import earlier, entries, personal, quantile_rule, saliency
from common.average import mean_of_shared
from common.earlier import Earlier
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Step
from common.methods import fedavg
from common.methods.fedavg import Reply
from common.payloads import Mask, Payload, Sparse, Weights
from common.samples import Samples
from common.store import AgentStore


@dataclass(frozen=True)
class Config:
    q: float = 0.9999
    times: float = 0.0  # instead of q: scores above so many times their mean are personal
    budget_bytes: int = 0  # instead of q: as many entries as these bytes carry as index and value
    score: saliency.Form = "obd"
    score_on: Literal["server", "agent"] = "server"
    ema: float = 0.0
    norm: saliency.Norm = "none"
    only: tuple[str, ...] = ()  # layers
    first_contact: Literal["empty", "initial"] = "empty"
    form: entries.Form = "smaller"
    aggregate: Literal["all", "shared"] = "all"  # shared: an agent's own entries are no part of the mean
    bn: personal.BatchNorm = "average"

    def __post_init__(self) -> None:
        by_agent, for_server = self.score_on == "agent", self.aggregate == "shared" or self.first_contact == "initial"
        if by_agent and for_server:
            raise ValueError("aggregate = 'shared' and first_contact = 'initial' need score_on = 'server'")
        if self.rule().score in saliency.NEEDS_DATA and not by_agent:
            raise ValueError(f"score = {self.score!r} needs the agent's data: score_on = 'agent'")
        quantile_rule.check_one_of(self.times, self.budget_bytes, by_agent=by_agent)

    def rule(self, q: float | None = None) -> saliency.Rule:
        return saliency.Rule(self.score, self.q if q is None else q, self.ema, self.norm, self.times)


@dataclass(frozen=True)
class State:
    common: fedavg.State
    scored: tuple[str, ...]
    initial: Weights | None
    earlier: AgentStore[Earlier]


@dataclass(frozen=True)
class Task:
    common: fedavg.Task
    own: Mask | Sparse | None


@dataclass(frozen=True)
class Memory:
    common: fedavg.Memory = field(default_factory=fedavg.Memory)
    weights: Weights | None = None
    score: Weights | None = None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    common = fedavg.init(run, model, start, rng)
    specs = {name: spec for name, spec in model.parameters().items() if name in common.weights}
    initial = common.weights if run.config.first_contact == "initial" else None
    return State(common, saliency.scored_names(specs, run.config.only), initial, AgentStore())


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    for agent in agents:
        yield agent, task_for(run, state, agent, chosen_for(run, state, agent.name))


def task_for(run: RunSpec[Config], state: State, agent: AgentInfo, found: earlier.Found | None) -> Task:
    own = found and earlier.sent(*found, run.config.form, agent.memory_step, run.encodings.down)
    return Task(fedavg.Task(state.common.weights, state.common.first), own)


def chosen_for(run: RunSpec[Config], state: State, agent: str) -> earlier.Found | None:
    base, first = run.down(state.common.weights), state.initial and run.down(state.initial)
    n, budget = sum(base[name].size for name in state.scored), run.config.budget_bytes
    q = quantile_rule.of_bytes(n, budget, run.encodings.down) if budget else run.config.q
    return earlier.choose(run.config.rule(q), state.earlier, agent, base, state.scored, else_from=first)


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    config = site.run.config
    start, chosen = _start(task, memory, site)
    for name, n in entries.report(task.own, chosen.bits, site.run.encodings.down):
        site.count(name, n)
    reply, common = fedavg.train(replace(task.common, weights=start), memory.common, site)
    held = site.run.up(reply.weights) if config.score_on == "agent" or config.form != "values" else None
    return reply, Memory(common, held, Weights(chosen.running) if config.ema and chosen.running else None)


def _start(task: Task, memory: Memory, site: Site[Config]) -> tuple[Weights, saliency.Chosen]:
    base, held, config = task.common.weights, memory.weights, site.run.config
    if config.score_on == "agent" and held is not None:
        own = personal.whole(site, site.learner(), [task.common.first, memory.common.own, held])
        chosen = earlier.choose_on_agent(config.rule(), own, base, config.only, site, memory.score)
        return entries.restored(base, site.run.down(own), chosen.bits), chosen
    start = entries.put_back(base, task.own, held and site.run.down(held))
    return start, saliency.Chosen(entries.bits_of(task.own), {})


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    store, config = state.earlier, run.config
    scored = partial(chosen_for, run, state) if config.ema else None

    def parts() -> Iterator[tuple[str, float, Weights, saliency.Bits]]:
        nonlocal store
        for agent, reply in replies:
            found = chosen_for(run, state, agent.name) if config.aggregate == "shared" else None
            yield agent.name, reply.n_samples, reply.weights, found[1].bits if found else {}
            if config.score_on == "server":
                store = store.made(agent.name, partial(earlier.upload, reply.weights, step.number, scored, agent.name))

    weights = mean_of_shared(parts(), like=state.common.weights)
    return replace(state, common=replace(state.common, weights=weights), earlier=store)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner, weights = site.learner(), reply.weights if reply else _start(task, memory, site)[0]
    model = personal.whole(site, learner, [task.common.first, memory.common.own, weights])
    return {"personal": learner.scores(model, inputs)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    return fedavg.result(run, state.common)
