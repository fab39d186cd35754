"""Reports that still wait for what their agents' transfers cost: completed in the background, never waited for.

A TransferReport comes after the receipt, so often after its step has closed. A report is published once all have come
or SETTLE_S have passed since its end; until then the journal holds it with the missing ones marked.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from common import pb
from common.task_key import Key
from server import reporting
from server.events import Event, Transferred

SETTLE_S = 2.0
Report = pb.RoundReport | pb.EvaluationReport


@dataclass
class _Draft:
    kind: "pb.TaskKind"
    reports: list[Report]
    ended_at: float | None = None  # time.monotonic()

    def open_agents(self) -> list[pb.AgentReport]:
        return [agent for report in self.reports for agent in report.agents if agent.transfer_missing]


@dataclass
class Drafts:
    run: str
    publish: Callable[[Report], None]
    unsaved: list[Report] = field(default_factory=list)  # changed since they were last journalled
    _drafts: list[_Draft] = field(default_factory=list)
    _early: dict[Key, pb.TransferReport] = field(default_factory=dict)

    def add(self, kind: "pb.TaskKind", reports: Iterable[Report], *, ended: bool) -> None:
        """Take up reports; the same one may be given again when it has grown. Published some time after its end."""
        reports = list(reports)
        draft = next((d for d in self._drafts if d.reports and reports and d.reports[0] is reports[0]), None)
        if draft is None:
            draft = _Draft(kind, reports)
            self._drafts.append(draft)
        for agent in draft.open_agents():
            early = self._early.pop(Key(self.run, agent.step, agent.agent, kind), None)
            if early is not None:
                _complete(agent, early)
        draft.ended_at = time.monotonic() if ended else None
        if ended:
            self._early.clear()  # of steps that are over, or of agents that replied too late
        self.settle()

    def heard(self, event: Event) -> None:
        if isinstance(event, Transferred):
            key = event.key
            places = [
                (draft, agent)
                for draft in self._drafts
                if draft.kind == key.kind
                for agent in draft.open_agents()
                if (agent.step, agent.agent) == (key.step, key.agent)
            ]
            for _, agent in places:
                _complete(agent, event.report)
            if not places:
                self._early[key] = event.report
            self.settle()

    def next_at(self) -> float | None:
        """When `settle` has something to do, if nothing comes before."""
        ends = [draft.ended_at for draft in self._drafts if draft.ended_at is not None]
        return min(ends) + SETTLE_S if ends else None

    def settle(self) -> None:
        """Publish what is complete, and what has waited long enough."""
        now = time.monotonic()
        for draft in list(self._drafts):
            if draft.ended_at is not None and (not draft.open_agents() or now >= draft.ended_at + SETTLE_S):
                self._drafts.remove(draft)
                for report in draft.reports:
                    if isinstance(report, pb.RoundReport):
                        report.metrics["bytes_per_round"] = reporting.bytes_of(report.agents)
                    self.unsaved.append(report)
                    self.publish(report)

    @property
    def is_empty(self) -> bool:
        return not self._drafts


def _complete(agent: pb.AgentReport, transfer: pb.TransferReport) -> None:
    agent.transfer.CopyFrom(transfer)
    agent.transfer_missing = False
