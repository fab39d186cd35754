"""Which payloads an agent keeps: what its memories, pending replies and tasks in hand name, and what came last.

Nothing is removed while a task runs, because what it puts into Blobs is named by nobody before it commits.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from common import pb
from common.blobs import Blobs
from edge_client.memory import Memories
from edge_client.offers import Offers

RECENT = 8  # last offers of different (run, agent) whose payloads stay: the current global model of a few runs
OVERDUE = 16  # tasks ended with garbage left behind, because another always ran: the next one waits


class Keep:
    """Counts tasks that run; `begin` and `end` frame each."""

    def __init__(self, blobs: Blobs, memories: Memories, offers: Offers) -> None:
        self._blobs, self._memories, self._offers = blobs, memories, offers
        self._changed = threading.Condition()
        self._running = 0
        self._ended = 0
        self._recent: OrderedDict[tuple[str, str], frozenset[bytes]] = OrderedDict()

    def begin(self, offer: pb.Offer) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended < OVERDUE)
            self._running += 1
            place = (offer.key.run, offer.key.agent)
            self._recent[place] = frozenset(digests_of(offer))
            self._recent.move_to_end(place)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def end(self) -> None:
        with self._changed:
            self._running -= 1
            self._ended += 1
            if self._running == 0:
                self._sweep()
                self._ended = 0
                self._changed.notify_all()

    def _sweep(self) -> None:
        kept = set().union(*self._recent.values())
        for offer in self._offers.all():
            kept.update(digests_of(offer))
        for record in self._memories.records():
            kept.update(ref.sha256 for ref in record.payloads)
        for digest in self._blobs.digests() - kept:
            self._blobs.remove(digest)


def digests_of(offer: pb.Offer) -> Iterable[bytes]:
    yield offer.run.sha256
    for ref in offer.task.payloads:
        yield ref.sha256
