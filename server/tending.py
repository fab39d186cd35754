"""What goes on while an engine waits: agents get ready, transfers are reported, files are swept, notes are made."""

import time
from collections.abc import Callable, Sequence

from common import pb
from common.blobs import Blobs
from server import retention
from server.collecting import Collection
from server.drafts import Drafts, Report
from server.inbox import Inbox, Listener, Stopped
from server.journal import Journal
from server.ledger import Ledger
from server.preparing import Preparing

Publish = Callable[[pb.RunEvent], None]
# Removing files takes milliseconds each, so it is done while the agents work, or once a second when rounds are shorter.
IDLE_S, SWEEP_S = 0.05, 1.0
QUIET_S = 1.0  # reports that transfers have completed are written with the next commit, or after so long without one


class Tending:
    def __init__(self, journal: Journal, blobs: Blobs, inbox: Inbox, preparing: Preparing, publish: Publish) -> None:
        self.drafts = Drafts(preparing.run, self._publish_report)
        self._run = preparing.run
        self._journal = journal
        self._blobs = blobs
        self._inbox = inbox
        self._preparing = preparing
        self._publish = publish
        self._ledger = Ledger(journal, preparing.run)
        self._note = ""
        self._to_sweep = True
        self._swept_at = time.monotonic()

    def next(self, listeners: Sequence[Listener] = (), deadline: float | None = None) -> None:
        """Wait for one event, or for something to do.

        Raises:
            Stopped: told to.
        """
        now = time.monotonic()
        quiet = now + QUIET_S if self.drafts.unsaved else None
        idle = now + IDLE_S if self._to_sweep else None
        moments = [deadline, self.drafts.next_at(), quiet, idle]
        if self._inbox.next(moments, [self._preparing, self.drafts, *listeners]):
            return
        self.drafts.settle()
        self.sweep()
        if self.drafts.unsaved and time.monotonic() >= now + QUIET_S:
            self.save([])

    def gather(self, collection: Collection, wanted: int) -> None:
        """Send the offers and take answers in until enough are here, nobody is left, or the deadline has come."""
        try:
            while self._inbox.next([0.0], [self._preparing, self.drafts, collection]):
                pass  # what came before the offers is known to them, and answered by none of them
            collection.start()
            if time.monotonic() > self._swept_at + SWEEP_S:
                self.sweep()
            while not collection.is_complete(wanted) and time.monotonic() < collection.deadline:
                self.next([collection], collection.deadline)
        except Stopped as stopped:
            if stopped.for_good:
                collection.withdraw("the run was stopped")
            raise

    def let_go(self, pin: str) -> None:
        """A step is over: what only it held may go, once the next one is on its way."""
        retention.unpin(self._journal, pin)
        self._to_sweep = True

    def sweep(self) -> None:
        if self._to_sweep:
            self._to_sweep, self._swept_at = False, time.monotonic()
            retention.sweep(self._journal, self._blobs)

    def save(self, reports: Sequence[Report]) -> None:
        """These, and those that transfers have completed since."""
        unsaved, self.drafts.unsaved = self.drafts.unsaved, []
        self._ledger.save([*reports, *unsaved])

    def say(self, note: str) -> None:
        """Tell the operator what the run waits for."""
        if note != self._note:
            self._note = note
            self._journal.write("UPDATE runs SET reason = ? WHERE run = ?", note, self._run)
            self._publish(pb.RunEvent(summary=self._journal.summary(self._run), note=note))

    def _publish_report(self, report: Report) -> None:
        event = pb.RunEvent(summary=self._journal.summary(self._run))
        if isinstance(report, pb.RoundReport):
            event.round.CopyFrom(report)
        else:
            event.evaluation.CopyFrom(report)
        self._publish(event)
