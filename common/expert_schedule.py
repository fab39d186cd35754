"""Which experts are trained in a round, and by whom: arithmetic over the taxonomy and what agents have measured.

Source of `round_robin`: the published protocol, one expert a round over all agents. The other schedules are ours.
`turn` depends on the round's number alone, so a node that nobody has samples under costs its turn and holds up no
other; `assign` depends on reports, which the server journals before a step begins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from common.errors import ConfigError
from common.method import AgentInfo, SpanReport
from common.taxonomy import Taxonomy

Fixed = Literal["round_robin", "breadth_first", "proportional"]
Nodes = tuple[str, ...]

MARGIN = 0.9  # of a budget is planned: a device's own figures vary by a few percent from round to round


class Schedule(Protocol):
    """What a method's Config says of it."""

    @property
    def schedule(self) -> Literal["round_robin", "breadth_first", "proportional", "resource_aware"]: ...
    @property
    def experts_per_round(self) -> int: ...
    @property
    def rounds_each(self) -> int: ...


@dataclass(frozen=True)
class Demand:
    """Of each node that is to be trained, breadth first: the steps that its expert has had, and what it takes."""

    trained: Mapping[str, int]
    model_bytes: Mapping[str, int]  # of all nodes: parameters, gradients, optimiser state


@dataclass(frozen=True)
class Cost:
    """What one expert is expected to cost one agent in one round."""

    seconds: float
    memory_bytes: float


def span(node: str) -> str:
    """The name under which agents report the training of a node's expert."""
    return f"expert {node}"


def shares(
    plan: Schedule, tree: Taxonomy, demand: Demand, agents: Sequence[AgentInfo], round_number: int
) -> dict[str, Nodes]:
    """The nodes that each agent trains in a round; agents that are known to have no samples under any are left out."""
    if plan.schedule == "resource_aware":
        return assign(tree, demand, agents)
    nodes = tuple(demand.trained)
    due = turn(plan.schedule, tree, nodes, round_number, n=plan.experts_per_round, each=plan.rounds_each)
    found = {a.name: tuple(node for node in due if samples_under(tree, node, a) > 0) for a in agents}
    return {name: mine for name, mine in found.items() if mine}


def turn(schedule: Fixed, tree: Taxonomy, nodes: Nodes, round_number: int, *, n: int, each: int) -> Nodes:
    """The nodes of a round, at most `n`, all different. `each`: rounds of a node, see the three functions."""
    match schedule:
        case "round_robin":
            return round_robin(nodes, round_number, n)
        case "breadth_first":
            return breadth_first(tree, nodes, round_number, n, each)
        case "proportional":
            return proportional(tree, nodes, round_number, n, each)


def round_robin(nodes: Nodes, round_number: int, n: int) -> Nodes:
    """In breadth-first order, over and over."""
    first = (round_number - 1) * min(n, len(nodes))
    return tuple(nodes[(first + i) % len(nodes)] for i in range(min(n, len(nodes))))


def breadth_first(tree: Taxonomy, nodes: Nodes, round_number: int, n: int, each: int) -> Nodes:
    """`each` rounds of a node before those of the nodes below it, so that a parent is ready when its children start.

    Nodes of one depth share a round, up to n; after the last the first come again.
    """
    groups: list[list[str]] = []
    for node in nodes:
        if groups and len(groups[-1]) < n and len(tree.path(groups[-1][0])) == len(tree.path(node)):
            groups[-1].append(node)
        else:
            groups.append([node])
    return tuple(groups[((round_number - 1) // each) % len(groups)])


@lru_cache(maxsize=64)
def proportional(tree: Taxonomy, nodes: Nodes, round_number: int, n: int, at_least: int) -> Nodes:
    """Rounds in proportion to `need`, after `at_least` of each node."""
    rounds = dict.fromkeys(nodes, 0)
    chosen: Nodes = ()
    for _ in range(round_number):
        order = sorted(nodes, key=lambda v: (min(rounds[v], at_least), (rounds[v] + 1) / need(tree, v)))
        chosen = tuple(order[:n])
        for node in chosen:
            rounds[node] += 1
    return chosen


def annealed(n_rounds: int, over: int) -> float:
    """The share of the learning rate that an expert has left after so many rounds of its own, by a cosine."""
    return 1.0 if over == 0 else (1 + math.cos(math.pi * min(n_rounds, over) / over)) / 2


def need(tree: Taxonomy, node: str) -> float:
    """sqrt(samples under the node) x (children - 1); for samples its classes stand, so that none are counted."""
    return math.sqrt(len(tree.below[node])) * (len(tree.children[node]) - 1)


# ------------------------------------------------------------------ by what agents measured


def assign(tree: Taxonomy, demand: Demand, agents: Sequence[AgentInfo]) -> dict[str, Nodes]:
    """Experts for each agent so that all are busy about equally long and none exceeds its budgets.

    A round lasts as long as the slowest agent takes for its own cheapest expert, or the fastest for the costliest, so
    that each expert fits on somebody; an agent with a budget of time has MARGIN of that instead. Agents with the
    fewest experts that fit choose first, what was trained least for its need before the rest: what only a strong agent
    can train is left to it. Every agent gets at least its cheapest expert, or one bad measurement would end it.

    Raises:
        ConfigError: no expert fits the memory of any agent that has samples.
    """
    trained, model_bytes = demand.trained, demand.model_bytes
    costs = {agent.name: costs_of(tree, agent, model_bytes) for agent in agents}
    costs = {name: {node: of[node] for node in trained if node in of} for name, of in costs.items()}
    fits = {agent.name: _fitting(agent, costs[agent.name], model_bytes) for agent in agents}
    able = sorted((a for a in agents if fits[a.name]), key=lambda a: (len(fits[a.name]), a.name))
    if not able:
        if any(costs.values()):
            raise ConfigError(_nothing_fits(agents, costs, model_bytes))
        return {}
    slowest_start = max(min(c.seconds for c in fits[a.name].values()) for a in able)
    fastest_whole = min(max(c.seconds for c in fits[a.name].values()) for a in able)
    taken = dict.fromkeys(trained, 0)
    chosen: dict[str, Nodes] = {}
    for agent in able:
        options = fits[agent.name]
        left = max(slowest_start, fastest_whole) if agent.time_s is None else MARGIN * agent.time_s
        mine: list[str] = []
        for node in sorted(options, key=lambda v: (trained[v] + taken[v]) / need(tree, v)):  # ties: breadth first
            if options[node].seconds <= left:
                mine.append(node)
                left -= options[node].seconds
        mine = mine or [_cheapest(options, model_bytes)]
        for node in mine:
            taken[node] += 1
        chosen[agent.name] = tuple(mine)
    return chosen


def costs_of(tree: Taxonomy, agent: AgentInfo, model_bytes: Mapping[str, int]) -> dict[str, Cost]:
    """The agent's cost of each node that it may have samples under, by its own reports; scaled where it has none.

    Before any report a sample counts one second, for only proportions matter then, and memory is the model's own.
    """
    reports = {node: r for r in agent.reports for node in tree.children if r.name == span(node) and r.n_samples}
    counts = {node: samples_under(tree, node, agent) for node in tree.children}
    return {node: _cost(node, n, reports, model_bytes) for node, n in counts.items() if n > 0}


def _cost(node: str, n: float, reports: Mapping[str, SpanReport], model_bytes: Mapping[str, int]) -> Cost:
    if node in reports:
        return Cost(reports[node].seconds, reports[node].rss_peak_delta_bytes)
    if not reports:
        return Cost(n, model_bytes[node])
    speed = sum(r.n_samples for r in reports.values()) / max(1e-9, sum(r.seconds for r in reports.values()))
    # a peak is activations and scratch plus the samples; of the nodes seen, the nearest with as many samples bounds it
    near = min(reports, key=lambda v: (reports[v].n_samples < n, abs(reports[v].n_samples - n)))
    more_samples = max(0.0, n - reports[near].n_samples)
    wider = math.sqrt(max(1.0, model_bytes[node] / model_bytes[near]))  # activations go with width, models its square
    samples_bytes = reports[near].data_bytes / reports[near].n_samples * more_samples
    return Cost(n / speed, reports[near].rss_peak_delta_bytes * wider + samples_bytes)


def samples_under(tree: Taxonomy, node: str, agent: AgentInfo) -> float:
    """Exact where the owner shares counts or a report tells, else the node's share of the classes."""
    if agent.data.counts is not None:
        return float(sum(agent.data.counts[i] for i in tree.below[node]))
    for report in agent.reports:
        if report.name == span(node):
            return float(report.n_samples)
    return agent.data.n_train * len(tree.below[node]) / len(tree.classes)


def _fitting(agent: AgentInfo, costs: Mapping[str, Cost], model_bytes: Mapping[str, int]) -> dict[str, Cost]:
    """The experts within the agent's memory: those whose expected peak is, and the cheapest if its model is.

    Peaks are not known before the first task, so then it is the cheapest alone.
    """
    if agent.memory_bytes is None or not costs:
        return dict(costs)
    room = MARGIN * agent.memory_bytes
    first = _cheapest(costs, model_bytes)
    if model_bytes[first] > room:
        return {}
    measured = any(report.name.startswith(span("")) for report in agent.reports)
    return {node: c for node, c in costs.items() if node == first or (measured and c.memory_bytes <= room)}


def _cheapest(costs: Mapping[str, Cost], model_bytes: Mapping[str, int]) -> str:
    return min(costs, key=lambda node: (model_bytes[node], costs[node].seconds))


def _nothing_fits(
    agents: Sequence[AgentInfo], costs: Mapping[str, Mapping[str, Cost]], model_bytes: Mapping[str, int]
) -> str:
    agent = max((a for a in agents if costs[a.name]), key=lambda a: a.memory_bytes or 0)
    node = _cheapest(costs[agent.name], model_bytes)
    return (
        f"no expert fits the memory of any agent; the smallest is {node!r}: training it takes"
        f" {model_bytes[node] / 1e6:.1f} MB for parameters, gradients and optimiser state, and the largest budget,"
        f" that of agent {agent.name}, is {(agent.memory_bytes or 0) / 1e6:.1f} MB; choose a narrower model or raise it"
    )
