"""A run without server, agents and wire: a method's own functions in this process, to look at what agents keep.

Draws, data and rules are those of a federation whose agents are named 00, 01, …; only what is sent is not encoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.experiment import n_agents
from common import methods, models, pb, runfile, seeds
from common.errors import UnknownName
from common.meter import Meter
from common.method import AgentInfo, DataFacts, RunSpec, Skip, Step
from common.run_sections import RunFile
from common.runfile import Run
from edge_client.data import opening
from edge_client.data.agent_data import AgentData
from edge_client.data.loaded import LoadedSource, loaded
from edge_client.features import encoded
from edge_client.prepare import model_input
from edge_client.site import Embeddings, TaskSite, Views, views


@dataclass
class Agent:
    """One agent's data, and the Memory of its last task."""

    name: str
    data: AgentData
    views: Views
    source: LoadedSource
    memory: Any  # Any: the method's own record
    task: Any = None


@dataclass
class Fleet:
    """A run under way; `state` is the method's."""

    run: Run
    agents: dict[str, Agent]
    state: Any  # Any: the method's own record
    _embeddings: Embeddings = field(default_factory=Embeddings)

    def rounds(self, n: int) -> "Fleet":
        for number in range(1, n + 1):
            self.round(number)
        return self

    def site(self, agent: Agent, number: int) -> TaskSite:
        spec = self.run.at(number)
        rng = seeds.generator(spec.seed, number, agent.name, "work")
        return TaskSite(
            spec,
            agent.name,
            agent.data.classes,
            agent.views,
            agent.source,
            rng=rng,
            meter=Meter(),
            embeddings=self._embeddings,
            check=lambda: None,
        )

    def round(self, number: int) -> None:
        spec = self.run.at(number)
        method: Any = methods.load(spec.method)
        step = Step(number, "train", number - 1, seeds.generator(spec.seed, number, "plan"))
        infos = tuple(_info(agent) for agent in self.agents.values())

        def replies() -> Iterator[tuple[AgentInfo, Any]]:
            for info, task in method.plan(spec, self.state, infos, step):
                agent = self.agents[info.name]
                try:
                    reply, agent.memory = method.work(task, agent.memory, self.site(agent, number))
                except Skip:
                    continue
                yield info, reply

        self.state = method.merge(spec, self.state, replies(), step)
        for info, task in method.plan(spec, self.state, infos, step):
            self.agents[info.name].task = task  # what the next training, or a prediction, starts from


def fleet(file: RunFile) -> Fleet:
    """The run's agents with their parts of its named data, before the first round."""
    count = n_agents(file)
    first: RunSpec[Any] = Run("in memory", file, None, None).at(1)
    shape = model_input(first.model)
    opened = [opening.open_part(file.data, pb.DataIndex(index=i, of=count), shape) for i in range(count)]
    run = Run("in memory", file, opened[0].classes, None)
    spec, method = run.at(1), methods.load(first.method)
    objective = spec.training.objective
    model = models.load(spec.model, len(opened[0].classes), objective=objective)
    state = method.init(spec, model, {}, seeds.generator(spec.seed, "init"))
    agents = {f"{i:02}": _agent(f"{i:02}", encoded(data, spec.model), file, method) for i, data in enumerate(opened)}
    return Fleet(run, agents, state)


def row(file: RunFile, label: str) -> RunFile:
    """The run file of one row."""
    for variant in runfile.expand(file):
        if variant.label == label:
            return variant.file
    raise UnknownName("row", label, [variant.label for variant in runfile.expand(file)])


def _agent(name: str, data: AgentData, file: RunFile, method: Any) -> Agent:
    over, source = loaded(data)
    cut = views(over, file.data.holdout, seeds.generator(file.run.seed, name, "holdout"))
    return Agent(name, over, cut, source, method.Memory())


def _info(agent: Agent) -> AgentInfo:
    train = agent.views.train
    facts = DataFacts(agent.data.name, len(agent.data.classes), "", len(train), len(agent.views.test))
    return AgentInfo(agent.name, facts)
