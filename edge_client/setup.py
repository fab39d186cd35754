"""From what the owner said on the command line to what the agent says to the server."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from common import __version__, methods, pb
from common.errors import ConfigError
from common.payloads import Encoding
from common.wire.limits import PART_BYTES
from common.wire.schema import schema_id
from edge_client import device, learners
from edge_client.agent import Setup
from edge_client.data.agent_data import facts
from edge_client.data.opening import open_path
from edge_client.job import AgentConfig

PROTOCOL = 1
NAMED = "named"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Wishes:
    """The command line, as values."""

    data: tuple[str, ...]
    name: str | None = None
    tags: tuple[str, ...] = ()
    learner: str = "auto"
    n_agents: int | None = None
    share: tuple[str, ...] = ()
    memory_budget_bytes: int | None = None
    time_budget_s: float | None = None


def setup(wishes: Wishes, instance: str, n_tasks: int) -> Setup:
    """Opens the data, to say what they are.

    Raises:
        ConfigError: a name that no host may have, or data that cannot be read.
    """
    host = host_name(wishes.name)
    check_learner(wishes.learner)
    agents = tuple(agents_of(wishes, host))
    return Setup(agents, _hello(wishes, host, instance, agents, n_tasks), wishes.memory_budget_bytes)


def check_learner(preference: str) -> None:
    there = learners.available()
    if preference != "auto" and preference not in there:
        hint = "install edgefed[torch], or " if preference == "torch" else ""
        raise ConfigError(f"--learner {preference} cannot work here: {hint}give another: {', '.join(there)}")


def host_name(name: str | None) -> str:
    if name is None:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().partition(".")[0]).lstrip("._-")[:64] or "agent"
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--name takes 1 to 64 letters, digits, dots, dashes, underscores, a letter or digit first: got {name!r}"
        )
    return name


def agents_of(wishes: Wishes, host: str) -> list[AgentConfig]:
    """HOST with its one data set; HOST/NAME for each NAME=PATH; HOST/00, HOST/01, … with --agents."""
    places = _places(wishes.data)
    if wishes.n_agents is not None:
        if len(places) > 1 or None not in places:
            raise ConfigError("--agents goes with one --data without a name: {agent} in its path is 00, 01, …")
        width = max(2, len(str(wishes.n_agents - 1)))
        places = {f"{n:0{width}}": places[None] for n in range(wishes.n_agents)}
    return [_agent(wishes, host, segment, where) for segment, where in places.items()]


def _places(data: Sequence[str]) -> dict[str | None, str]:
    places: dict[str | None, str] = {}
    for text in data:
        segment, equals, where = text.partition("=")
        key = segment if equals and NAME.fullmatch(segment) else None
        if key in places or (None in places) or (key is None and places):
            raise ConfigError(f"several --data need a name each, NAME=PATH, and no name twice: got {', '.join(data)}")
        places[key] = text if key is None else where
    return places


def _agent(wishes: Wishes, host: str, segment: str | None, where: str) -> AgentConfig:
    is_named = where == NAMED
    return AgentConfig(
        name=host if segment is None else f"{host}/{segment}",
        data=None if is_named else where.replace("{agent}", segment or host),
        named=is_named,
        learner=wishes.learner,
        share_counts="counts" in wishes.share,
    )


def _hello(wishes: Wishes, host: str, instance: str, agents: Sequence[AgentConfig], n_tasks: int) -> pb.Hello:
    return pb.Hello(
        host=host,
        instance=instance,
        protocol=PROTOCOL,
        version=__version__,
        device=device.facts(),
        learners=learners.available() if wishes.learner == "auto" else [wishes.learner],
        methods=method_ids(),
        encodings=get_args(Encoding),
        memory_budget_bytes=wishes.memory_budget_bytes,
        time_budget_s=wishes.time_budget_s,
        agents=[description(agent, wishes.tags) for agent in agents],
        part_bytes=PART_BYTES,
        workers=n_tasks,
    )


def description(agent: AgentConfig, tags: Sequence[str]) -> pb.AgentDescription:
    if agent.data is None:
        return pb.AgentDescription(name=agent.name, tags=tags, named_data=True)
    data = open_path(Path(agent.data), agent.name)
    return pb.AgentDescription(name=agent.name, tags=tags, data=facts(data, share_counts=agent.share_counts))


def method_ids() -> dict[str, bytes]:
    """Every method of this build, with the id of what its Task and Reply look like."""
    modules = {name: methods.load(name) for name in methods.names()}
    return {name: schema_id(module.Task, module.Reply) for name, module in modules.items()}
