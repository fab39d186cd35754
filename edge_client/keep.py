"""Which payloads an agent keeps: what its memories, pending replies and tasks in hand name, and what came last.

Nothing is removed while a task runs, because what it puts into Blobs is named by nobody before it commits.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from common import pb
from common.blobs import Blobs
from edge_client.memory import Archive
from edge_client.offers import Offers

log = logging.getLogger(__name__)

RECENT = 8  # last tasks of different (run, agent) whose payloads stay: the current models of a few runs
SWEEP_EVERY_S = 5.0  # short tasks leave little, and looking costs milliseconds
OVERDUE = 16  # tasks ended with garbage left behind, because another always ran: the next one waits


@dataclass(frozen=True)
class _Recent:
    """Of one agent and run: the payloads of its last offer, and those of the last task that is remembered."""

    offered: frozenset[bytes]
    remembered: frozenset[bytes]


class Keep:
    """Counts tasks that run; `begin` and `end` frame each."""

    def __init__(self, blobs: Blobs, memories: Archive, offers: Offers) -> None:
        self._blobs, self._memories, self._offers = blobs, memories, offers
        self._changed = threading.Condition()
        self._running = 0
        self._ended = 0
        self._next_at = 0.0
        self._recent: OrderedDict[tuple[str, str], _Recent] = OrderedDict()
        for last in reversed(memories.last_tasks()[:RECENT]):
            self._note(last.offer, remembered=_digests_of(last))

    def begin(self, offer: pb.Offer) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended < OVERDUE)
            self._running += 1
            self._note(offer)

    def remember(self, server: str, offer: pb.Offer, memory: pb.Record | None) -> None:
        """A task and the memory that it begins with: `edge-agent predict` wants both, and so does the next start."""
        last = pb.LastTask(offer=offer, memory=memory)
        self._memories.of(server).keep_last(last)
        with self._changed:
            self._note(offer, remembered=_digests_of(last))

    def end(self) -> None:
        with self._changed:
            self._running -= 1
            self._ended += 1
            if self._running == 0 and (self._ended >= OVERDUE or time.monotonic() >= self._next_at):
                try:
                    self._sweep()
                except OSError as fault:  # what is not removed takes room, and no more than that
                    log.warning('sweep_failed reason="%s"', fault)
                self._ended = 0
                self._next_at = time.monotonic() + SWEEP_EVERY_S
                self._changed.notify_all()

    def check(self) -> None:
        """At the start: what was fetched was not forced to the disk, and may have been lost with the power."""
        durable = self._remembered()
        for digest in self._blobs.digests() - durable:
            if not self._is_whole(digest):
                self._blobs.remove(digest)

    def _is_whole(self, digest: bytes) -> bool:
        try:
            with self._blobs.path(digest).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() == digest
        except OSError as fault:
            log.warning('payload_unreadable sha256=%s reason="%s"', digest.hex(), fault)
            return False

    def _note(self, offer: pb.Offer, remembered: frozenset[bytes] | None = None) -> None:
        place = (offer.key.run, offer.key.agent)
        if remembered is None:
            remembered = self._recent[place].remembered if place in self._recent else frozenset()
        self._recent[place] = _Recent(frozenset(digests_of(offer)), remembered)
        self._recent.move_to_end(place)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _sweep(self) -> None:
        kept = self._remembered().union(*(one.offered | one.remembered for one in self._recent.values()))
        for offer in self._offers.all():
            kept.update(digests_of(offer))
        for digest in self._blobs.digests() - kept:
            self._blobs.remove(digest)

    def _remembered(self) -> set[bytes]:
        return {ref.sha256 for record in self._memories.records() for ref in record.payloads}


def _digests_of(last: pb.LastTask) -> frozenset[bytes]:
    return frozenset([*digests_of(last.offer), *(ref.sha256 for ref in last.memory.payloads)])


def digests_of(offer: pb.Offer) -> Iterable[bytes]:
    yield offer.run.sha256
    for ref in offer.task.payloads:
        yield ref.sha256
