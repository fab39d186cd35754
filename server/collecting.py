"""The offers of one step: who has still to answer, and what became of the others."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from common import pb
from common.task_key import Key
from server.events import Event, Gone, Joined, Refused, Replied, Took
from server.fleet import Fleet

log = logging.getLogger(__name__)

Outcome = Literal["merged", "late", "skipped", "failed", "lost"]
_REPLANS = 3  # an agent whose memory is another one each time it is asked is broken


class Answer(NamedTuple):
    outcome: Outcome
    reason: str


@dataclass
class Collection:
    """Offers on their way and answers coming in. `replan` makes an offer anew for an agent that holds other memory."""

    fleet: Fleet
    offers: dict[str, pb.Offer]  # by agent
    deadline: float  # time.monotonic()
    replan: Callable[[str, int], pb.Offer | None]
    replied: set[str] = field(default_factory=set)
    answers: dict[str, Answer] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _replans: dict[str, int] = field(default_factory=dict)
    _has_started: bool = False

    def start(self) -> None:
        """Push the offers, as what was heard until now has left them."""
        self._has_started = True
        at_work = {agent.name for agent in self.fleet.agents() if agent.working_on and self._is_mine(agent.working_on)}
        self._taken |= at_work  # since before an interruption
        for agent in self.waiting():
            self._push(agent)

    def waiting(self) -> list[str]:
        return [agent for agent in self.offers if agent not in self.replied and agent not in self.answers]

    def n_skipped(self) -> int:
        return sum(answer.outcome == "skipped" for answer in self.answers.values())

    def is_complete(self, wanted: int) -> bool:
        """Whether as many have replied as are wanted, or nobody is left to wait for."""
        n_waiting = len(self.offers) - len(self.replied) - len(self.answers)
        return n_waiting == 0 or len(self.replied) >= wanted

    def heard(self, event: Event) -> None:
        match event:
            case Joined(agents):
                for agent in agents:
                    if agent in self.offers and agent not in self.replied and agent not in self.answers:
                        self._push(agent)
            case Gone(agents):
                self._taken.difference_update(agents)
            case Took(key) if self._is_mine(key):
                self._taken.add(key.agent)
            case Replied(key) if self._is_mine(key):
                self.answers.pop(key.agent, None)
                self.replied.add(key.agent)
            case Refused(key, why, reason, memory_step) if self._is_mine(key) and key.agent not in self.replied:
                self._refused(key.agent, why, reason, memory_step)

    def withdraw(self, reason: str) -> dict[str, Answer]:
        """Take back what is open; gives what became of each agent that did not reply."""
        for agent in self.waiting():
            self.fleet.withdraw(Key.of(self.offers[agent].key), reason)
            self.answers[agent] = (
                Answer("late", "no reply before the step closed")
                if agent in self._taken
                else Answer("lost", "not connected, or it never began")
            )
        return self.answers

    def _refused(self, agent: str, why: "pb.Decline", reason: str, memory_step: int) -> None:
        if why == pb.ENDING:  # offered again when it joins
            self._taken.discard(agent)
        elif why == pb.SKIPPED:
            self.answers[agent] = Answer("skipped", reason)
        elif why == pb.OTHER_MEMORY:
            self._plan_again(agent, memory_step)
        else:
            self.answers[agent] = Answer("failed", reason)
            log.warning("task_failed task=%s reason=%s", Key.of(self.offers[agent].key), reason)

    def _plan_again(self, agent: str, memory_step: int) -> None:
        self._replans[agent] = self._replans.get(agent, 0) + 1
        if self._replans[agent] > _REPLANS:
            self.answers[agent] = Answer("failed", f"its memory is of another step each time: now {memory_step}")
            return
        offer = self.replan(agent, memory_step)
        if offer is None:
            self.answers[agent] = Answer("skipped", f"nothing planned for it with the memory of step {memory_step}")
            return
        self.offers[agent] = offer
        self._push(agent)

    def _push(self, agent: str) -> None:
        if not self._has_started:
            return
        offer = self.offers[agent]
        offer.deadline_s = max(0.001, self.deadline - time.monotonic())
        self.fleet.offer(offer)  # one that is not connected gets it when it joins

    def _is_mine(self, key: Key) -> bool:
        offer = self.offers.get(key.agent)
        return offer is not None and Key.of(offer.key) == key
