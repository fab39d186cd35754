"""Which agents are ready for a run: each looks at it once and says what its data are under the run's class list.

One that comes back as something else, with other data or another budget, looks again before it gets another task.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from common import pb
from common.errors import ConfigError, RemoteFault
from common.run_sections import RunFile
from common.task_key import Key
from server import claims
from server.events import Event, Gone, Joined, Prepared, Refused
from server.fleet import Fleet, Present
from server.journal import Journal

log = logging.getLogger(__name__)

PATIENCE_S = 30.0  # once enough are ready, for those that have still to answer; they may answer later, too
Classes = tuple[str, ...]


@dataclass
class Preparing:
    """Asks agents as they come, all through the run. What they answer is journalled; who refuses is asked again when
    it comes back, for its owner may have mended it.
    """

    journal: Journal
    fleet: Fleet
    run: str
    file: RunFile
    blob: pb.PayloadRef  # the run, as agents fetch it
    classes: Classes | None = None  # common to all agents, once settled
    declined: dict[str, str] = field(default_factory=dict)
    _asked: dict[str, bytes] = field(default_factory=dict)  # agent -> digest of the run as it was then
    _described: dict[str, bytes] = field(default_factory=dict)  # agent -> digest of what it was when it was asked last
    _enough_since: float | None = None  # time.monotonic()

    def look(self) -> None:
        """Ask every agent that is there, unless it was asked as it is now."""
        present = [agent for agent in self.fleet.agents() if self.fits(agent)]
        self._give_positions(present)
        positions = self.positions()
        asked = {*self.at_hand(), *self._asked, *self.declined}
        for agent in present:
            if not agent.online or agent.name in asked:
                continue
            if agent.description.named_data and agent.name not in positions:
                if reason := self._no_position(positions):
                    self.declined[agent.name] = reason
                continue
            key = pb.TaskKey(run=self.run, agent=agent.name, kind=pb.PREPARE)
            offer = pb.Offer(key=key, run=self.blob, memory_step=-1, merged_step=-1)
            if agent.name in positions:
                index, of = positions[agent.name]
                offer.data.CopyFrom(pb.DataIndex(index=index, of=of))
            if self.fleet.offer(offer):
                self._asked[agent.name] = self.blob.sha256
                self._described[agent.name] = _digest(agent)

    def heard(self, event: Event) -> None:
        match event:
            case Joined(agents):
                for agent in agents:
                    self._asked.pop(agent, None)
                    self.declined.pop(agent, None)
                self.look()
            case Gone(agents):
                for agent in agents:
                    self._asked.pop(agent, None)
            case Prepared(key, data, classes) if self._is_mine(key):
                asked = self._asked.pop(key.agent, b"")
                if classes == self.classes or self.classes is None or asked in (b"", self.blob.sha256):
                    self._prepared(key.agent, data, classes)
                else:  # the class list was settled meanwhile: its data may fit that
                    self.look()
            case Refused(key, why, reason, _) if self._is_mine(key):
                self._asked.pop(key.agent, None)
                if why != pb.ENDING:
                    self.declined[key.agent] = reason
                    log.info("agent_declined run=%s agent=%s reason=%s", self.run, key.agent, reason)

    def fits(self, agent: Present) -> bool:
        return set(self.file.agents.tags) <= set(agent.description.tags)

    def ready(self) -> set[str]:
        """Those that have looked at the run, whether or not they are there now."""
        query = "SELECT agent FROM agents WHERE run = ? AND prepared IS NOT NULL"
        return {row["agent"] for row in self.journal.rows(query, self.run)}

    def at_hand(self) -> dict[str, Present]:
        """Those of them that are connected, and are what they were when they looked."""
        query = "SELECT agent, described FROM agents WHERE run = ? AND prepared IS NOT NULL"
        then = {row["agent"]: row["described"] for row in self.journal.rows(query, self.run)}
        return {
            agent.name: agent
            for agent in self.fleet.agents()
            if agent.online and agent.name in then and self.fits(agent) and then[agent.name] in (None, _digest(agent))
        }

    def is_settled(self) -> bool:
        """Whether enough are ready, and those who have still to answer have had their time."""
        at = self.settles_at()
        return at is not None and at <= time.monotonic()

    def settles_at(self) -> float | None:
        """When that will be so if nothing comes (time.monotonic()); None while too few are ready."""
        if len(self._willing()) < self._least():
            self._enough_since = None
            return None
        if self._enough_since is None:
            self._enough_since = time.monotonic()
        return self._enough_since + (min(self.file.agents.deadline_s, PATIENCE_S) if self._asked else 0.0)

    def nobody_can(self) -> str:
        """Why this run will not start with the agents that are there; empty while it may."""
        present = [agent.name for agent in self.fleet.agents() if self.fits(agent) and agent.online]
        ready = self._willing()
        refusing = sorted(self.declined.keys() & set(present))
        if self._asked or len(ready) >= self._least() or not refusing or len(present) < self._least():
            return ""
        if any(agent not in ready and agent not in self.declined for agent in present):
            return ""
        reasons = "; ".join(f"agent {agent}: {self.declined[agent]}" for agent in refusing[:3])
        return f"too few agents can serve run {self.run}: expected {self._least()}, got {len(ready)}; {reasons}"

    def waiting_for(self) -> str:
        n, least = len(self._willing()), self._least()
        text = f"waiting for agents: {f'{n} of {least}' if n < least else 'enough'} are ready"
        return f"{text}, no answer yet from {_some(sorted(self._asked))}" if self._asked else text

    def positions(self) -> dict[str, tuple[int, int]]:
        """agent -> its index among those with named data, of how many."""
        query = "SELECT agent, position FROM agents WHERE run = ? AND position IS NOT NULL"
        n = self.file.data.n_agents or 0
        return {row["agent"]: (row["position"], n) for row in self.journal.rows(query, self.run)}

    def settle_classes(self) -> Classes | None:
        """The run's class list: from its file, or what all agents have; None when each agent has its own head.

        Raises:
            ConfigError: two agents have different lists, and the head is common.
        """
        if self.file.data.classes is not None or self.file.model.head == "agent":
            return self.file.data.classes
        first: tuple[str, Classes] | None = None
        query = "SELECT agent, prepared FROM agents WHERE run = ? AND prepared IS NOT NULL ORDER BY agent"
        for row in self.journal.rows(query, self.run):
            if row["agent"] in self.declined:  # what it has now
                continue
            classes = tuple(pb.Prepared.FromString(row["prepared"]).classes)
            if first is None:
                first = (row["agent"], classes)
            elif classes != first[1]:
                raise ConfigError(
                    f"run {self.run}: agents have different classes and share one head; give [data] classes, or [model]"
                    f' head = "agent": {first[0]} has {_shown(first[1])}, {row["agent"]} has {_shown(classes)}'
                )
        self.classes = None if first is None else first[1]
        return self.classes

    def _willing(self) -> set[str]:
        return self.ready() - self.declined.keys()

    def _prepared(self, agent: str, data: pb.DataFacts, classes: Classes) -> None:
        try:
            claims.check_facts(data, len(classes), "its data")
            if self.classes is not None and classes != self.classes:
                raise RemoteFault(
                    f"its classes are not the run's: expected {_shown(self.classes)}, got {_shown(classes)}"
                )
        except RemoteFault as fault:
            self.declined[agent] = str(fault)
            log.warning("agent_left_out run=%s agent=%s reason=%s", self.run, agent, self.declined[agent])
            return
        prepared = pb.Prepared(data=data, classes=classes).SerializeToString()
        self.journal.write(
            "INSERT INTO agents(run, agent, prepared, described) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET prepared = excluded.prepared, described = excluded.described",
            *(self.run, agent, prepared, self._described.get(agent, b"")),
        )

    def _give_positions(self, present: Iterable[Present]) -> None:
        n = self.file.data.n_agents
        if n is None or self.positions():
            return
        named = sorted(agent.name for agent in present if agent.description.named_data)
        if len(named) >= n:
            with self.journal.commit() as db:
                rows = [(self.run, name, position) for position, name in enumerate(named[:n])]
                db.executemany(
                    "INSERT INTO agents(run, agent, position) VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET position = excluded.position",
                    rows,
                )

    def _no_position(self, positions: dict[str, tuple[int, int]]) -> str:
        if self.file.data.n_agents is None:
            return "the run file gives no [data] n_agents, which agents with named data need"
        return f"all {self.file.data.n_agents} shares of [data] n_agents are taken" if positions else ""

    def _least(self) -> int:
        named = len(self.positions()) if self.file.data.n_agents else 0
        return max(self.file.agents.min, named)

    def _is_mine(self, key: Key) -> bool:
        return key.run == self.run and key.kind == pb.PREPARE


def _digest(agent: Present) -> bytes:
    """Of what decides whether and on what it can work: its data, learners and budget, not its tags."""
    description = pb.AgentDescription(data=agent.description.data, named_data=agent.description.named_data)
    hello = pb.Hello(learners=agent.hello.learners, agents=[description])
    if agent.hello.HasField("memory_budget_bytes"):
        hello.memory_budget_bytes = agent.hello.memory_budget_bytes
    return hashlib.sha256(hello.SerializeToString(deterministic=True)).digest()


def _shown(classes: Classes) -> str:
    return f"{len(classes)} ({_some(classes)})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
