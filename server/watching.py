"""Those who follow runs: what they hear, and that they hear it once."""

import queue
import threading
from collections import defaultdict
from collections.abc import Callable

from common import pb

Watched = queue.SimpleQueue[pb.RunEvent | None]


class _Watcher:
    """One who follows a run from a round on: hears of each round and evaluation that is over once, from the journal or
    when it is published, and again when transfers that it still lacked have been told.
    """

    def __init__(self, from_round: int) -> None:
        self.events: Watched = queue.SimpleQueue()
        self._from_round = from_round
        self._told: set[tuple[int, str, int]] = set()

    def tell_of(self, detail: pb.RunDetail, n_over: int) -> None:
        """What the journal has of rounds that are over."""
        for report in detail.rounds:
            if self._from_round <= report.round <= n_over:
                self.tell(pb.RunEvent(summary=detail.summary, round=report))
        for evaluation in detail.evaluations:
            if self._from_round <= evaluation.round:
                self.tell(pb.RunEvent(summary=detail.summary, evaluation=evaluation))

    def tell(self, event: pb.RunEvent) -> None:
        about = None
        if event.HasField("round"):
            about = event.round.round, "", _n_missing(event.round)
        elif event.HasField("evaluation"):
            about = event.evaluation.round, event.evaluation.moment, _n_missing(event.evaluation)
        if about not in self._told:
            self.events.put(event)
        if about is not None:
            self._told.add(about)


class Watchers:
    """Of all runs. `past` gives what the journal has of a run, and how many of its rounds are over."""

    def __init__(self, past: Callable[[str], tuple[pb.RunDetail, int]]) -> None:
        self._past = past
        self._lock = threading.Lock()  # taken before the journal's lock, never while that is held
        self._of: dict[str, list[_Watcher]] = defaultdict(list)

    def add(self, run: str, from_round: int, over: tuple[str, ...]) -> Watched:
        """Follow a run; one whose status is `over` has nothing more to tell."""
        watcher = _Watcher(from_round)
        with self._lock:
            detail, n_over = self._past(run)
            watcher.tell_of(detail, n_over)
            watcher.tell(pb.RunEvent(summary=detail.summary))
            if detail.summary.status in over:
                watcher.events.put(None)
            else:
                self._of[run].append(watcher)
        return watcher.events

    def remove(self, run: str, events: Watched) -> None:
        with self._lock:
            left = [watcher for watcher in self._of.pop(run, []) if watcher.events is not events]
            if left:
                self._of[run] = left

    def publish(self, run: str, event: pb.RunEvent) -> None:
        with self._lock:
            for watcher in self._of.get(run, []):
                watcher.tell(event)

    def catch_up(self, run: str) -> None:
        """What an engine that was interrupted had still to publish."""
        with self._lock:
            if watchers := self._of.get(run):
                detail, n_over = self._past(run)
                for watcher in watchers:
                    watcher.tell_of(detail, n_over)

    def end(self, run: str) -> None:
        with self._lock:
            for watcher in self._of.pop(run, []):
                watcher.events.put(None)


def _n_missing(report: pb.RoundReport | pb.EvaluationReport) -> int:
    return sum(agent.transfer_missing for agent in report.agents)
