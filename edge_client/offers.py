"""Offers in hand: first in, first out, one task at a time per agent."""

import threading
from dataclasses import dataclass, field

from common import pb
from common.task_key import Key


@dataclass
class InHand:
    """An offer from its arrival to its receipt."""

    offer: pb.Offer
    offer_bytes: int = 0  # on the wire
    server: str = ""  # id of the server that made it
    withdrawn: threading.Event = field(default_factory=threading.Event)
    is_overtaken: bool = False  # withdrawn by an offer of a later step, not by word of the server
    is_cancellable: bool = False
    is_submitting: bool = False
    is_ending: bool = False  # the agent stops; its task is cut short
    is_answered: bool = False  # declined or prepared: the server may offer the same anew before this one is done with

    @property
    def key(self) -> Key:
        return Key.of(self.offer.key)

    @property
    def is_open(self) -> bool:
        """Whether the server still waits for an answer to it."""
        return not (self.withdrawn.is_set() or self.is_answered)


class Offers:
    """Thread-safe; `take` waits without polling."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[InHand] = []
        self._running: list[InHand] = []
        self._is_closed = False

    def put(self, offer: pb.Offer, offer_bytes: int = 0, server: str = "") -> InHand | None:
        """Enter an offer. Offered again while it waits, the newer one takes its place; while it runs, it runs on.

        The task of an earlier step of its run and agent is withdrawn by it, and given back if it runs: an agent that
        was away when that step closed is not told so.
        """
        key = Key.of(offer.key)
        with self._changed:
            if self._is_closed or any(task.key == key and task.is_open for task in self._running):
                return None
            for task in self._waiting:
                if task.key == key:
                    task.offer, task.offer_bytes, task.server = offer, offer_bytes, server
                    return None
            self._waiting = [task for task in self._waiting if not _ends(key, task.key)]
            self._waiting.append(InHand(offer, offer_bytes, server))
            self._changed.notify_all()
            for task in self._running:
                # A reply on its way goes on: the next offer may be here before the receipt that says it was taken.
                if _ends(key, task.key) and task.is_open and not task.is_submitting:
                    task.is_overtaken = True
                    task.withdrawn.set()
                    return task
        return None

    def take(self) -> InHand | None:
        """The first offer whose agent is free, when there is one; None once closed. `done` must follow."""
        with self._changed:
            while not self._is_closed:
                busy = {task.key.agent for task in self._running}
                for task in self._waiting:
                    if task.key.agent not in busy:
                        self._waiting.remove(task)
                        self._running.append(task)
                        return task
                self._changed.wait()
            return None

    def done(self, task: InHand) -> None:
        with self._changed:
            self._running.remove(task)
            self._changed.notify_all()

    def withdraw(self, key: Key) -> InHand | None:
        """Forget an offer that waits; one that runs is marked and given back."""
        with self._changed:
            self._waiting = [task for task in self._waiting if task.key != key]
            for task in self._running:
                if task.key == key:
                    task.withdrawn.set()
                    return task
        return None

    def all(self) -> list[pb.Offer]:
        """Every offer in hand: its payloads must stay."""
        with self._changed:
            return [task.offer for task in (*self._running, *self._waiting)]

    def close(self, grace_s: float) -> list[Key]:
        """No more tasks; waits that long for replies on their way, then gives the keys of all that was not done."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not any(task.is_submitting for task in self._running), grace_s)
            for task in self._running:
                task.is_ending = True
            return [task.key for task in (*self._running, *self._waiting)]


def _ends(newer: Key, older: Key) -> bool:
    """Whether a server that offers one has closed the other: it has one step or evaluation of a run open at a time.

    It asks for PREPARE beside them, when a host comes back with other data.
    """
    is_same_place = (newer.run, newer.agent) == (older.run, older.agent)
    return is_same_place and newer != older and pb.PREPARE not in (newer.kind, older.kind)
