"""Being there: the Join stream, opened again for as long as the agent lives, whatever the server answers."""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable

import grpc

from common import pb
from common.errors import LinkLost
from edge_client.link import Backoff, Call, Link
from edge_client.trouble import LONGEST_ASKED_S
from edge_client.watch import Progress, watched

log = logging.getLogger(__name__)

WELCOME_S = 30.0  # a server that says nothing for so long after hello is none
STEADY_S = 10.0  # a stream that lived so long was a good one: the next failure starts at short waits again
FAILURES_BEFORE_REBUILD = 3
PART_BYTES = 512 << 10  # until the server names its own


class Ending(Exception):
    """The agent is stopping; whoever waits for the link gives up."""


class Presence:
    """The agent as the server sees it. `run` belongs to one thread; the rest may be called from any."""

    def __init__(
        self,
        link: Link,
        hello: pb.Hello,
        heard: Callable[[pb.ServerEvent, int], None],
        *,
        backoff: Backoff | None = None,
    ) -> None:
        """`heard` gets each offer and withdrawal with its size on the wire, in the thread of `run`."""
        self._link, self._hello, self._heard = link, hello, heard
        self._backoff = backoff or Backoff()
        self._changed = threading.Condition()
        self._outbox: queue.SimpleQueue[bytes | None] | None = None
        self._call: Call | None = None
        self._kept: list[pb.AgentEvent] = []
        self._joins = 0
        self._is_ending = False
        self._said = ""
        self.part_bytes = PART_BYTES
        self.server = ""  # id of the one that it joined last

    def run(self) -> None:
        """Join, and join again, until `leave`."""
        while not self._is_ending:
            started = time.monotonic()
            wait_s = self._session()
            if time.monotonic() - started > STEADY_S:
                self._backoff.reset()
            if self._backoff.failures >= FAILURES_BEFORE_REBUILD or self._link.files_changed():
                self._link.rebuild()
            with self._changed:
                self._changed.wait_for(lambda: self._is_ending, wait_s)

    def send(self, event: pb.AgentEvent) -> None:
        """Say it now. When the link is down only transfer reports wait: open tasks are offered again after a join."""
        with self._changed:
            if self._outbox is not None:
                self._outbox.put(event.SerializeToString())
            elif event.HasField("transfer"):
                self._kept = [*self._kept[-255:], event]

    @property
    def is_joined(self) -> bool:
        return self._outbox is not None

    def wait(self, seconds: float) -> None:
        """Let that time pass, or less when the server is back before; while it is away, wait for it.

        Raises:
            Ending: the agent is stopping.
        """
        with self._changed:
            joins = self._joins
            self._changed.wait_for(lambda: self._is_ending or self._joins > joins, seconds)
            self._changed.wait_for(lambda: self._is_ending or self.is_joined)
            if self._is_ending:
                raise Ending

    def leave(self, declined: list[pb.AgentEvent], reason: str, grace_s: float) -> None:
        """Tell the server what is not done, and that we go; waits that long for it to hear."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
            outbox, call = self._outbox, self._call
            if outbox is not None:
                for event in (*declined, pb.AgentEvent(leaving=pb.Leaving(reason=reason))):
                    outbox.put(event.SerializeToString())
                outbox.put(None)
                self._changed.wait_for(lambda: self._call is not call, grace_s)
        if call is not None:
            call.cancel()

    # ------------------------------------------------------------------ one stream, in the thread of `run`

    def _session(self) -> float:
        """One stream from hello to its end; how long to wait before the next."""
        outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        outbox.put(pb.AgentEvent(hello=self._hello).SerializeToString())
        try:
            call = self._link.join(iter(outbox.get, None))
        except LinkLost:  # closed, for the agent is stopping
            return 0.0
        with self._changed:
            self._call = call
        try:
            return self._listen(call, outbox)
        except grpc.RpcError as error:
            found = self._link.explain(error)
            return self._failed(found.sentence, is_slow=found.is_slow, asked_s=found.retry_after_s)
        except LinkLost as fault:
            return self._failed(f"{self._link.server} does not answer: {fault}")
        except pb.DecodeError as fault:
            return self._failed(f"{self._link.server} sends what is no event of this protocol: {fault}", is_slow=True)
        finally:
            with self._changed:
                self._outbox = self._call = None
                self._changed.notify_all()
            outbox.put(None)
            call.cancel()

    def _listen(self, call: Call, outbox: "queue.SimpleQueue[bytes | None]") -> float:
        progress = Progress(WELCOME_S)
        with watched(call, progress):
            for data in call:
                progress.stop()
                event = pb.ServerEvent.FromString(data)
                match event.WhichOneof("kind"):
                    case "welcome":
                        self._joined(event.welcome, outbox)
                    case "offer" | "withdrawn":
                        self._heard(event, len(data) + 5)
                    case "come_back":
                        return self._sent_away(event.come_back)
                    case "refused":
                        return self._failed(f"refused by {self._link.server}: {event.refused.reason}", is_slow=True)
                    case _:  # newer than this agent
                        log.debug("event_ignored bytes=%d", len(data))
        return self._failed(f"{self._link.server} has ended the stream without a word")

    def _failed(self, sentence: str, *, is_slow: bool = False, asked_s: float = 0.0) -> float:
        if self._is_ending:
            return 0.0
        wait_s = self._backoff.after(is_slow=is_slow, asked_s=asked_s)
        n = self._backoff.failures
        is_news = sentence != self._said or n & (n - 1) == 0  # the same again: at 1, 2, 4, 8, … failures
        self._said = sentence
        log.log(
            logging.WARNING if is_news else logging.DEBUG, 'not_joined again_in_s=%.1f reason="%s"', wait_s, sentence
        )
        return wait_s

    def _joined(self, welcome: pb.Welcome, outbox: "queue.SimpleQueue[bytes | None]") -> None:
        with self._changed:
            if self._is_ending:
                return
            self.server = welcome.server
            if welcome.part_bytes:
                self.part_bytes = min(welcome.part_bytes, self._hello.part_bytes or welcome.part_bytes)
            for event in self._kept:
                outbox.put(event.SerializeToString())
            self._kept = []
            self._outbox = outbox
            self._joins += 1
            self._changed.notify_all()
        log.info("joined server=%s version=%s agents=%d", self._link.server, welcome.version, len(self._hello.agents))

    def _sent_away(self, come_back: pb.ComeBack) -> float:
        jitter_s = random.uniform(0.0, max(come_back.jitter_s, 0.0))
        wait_s = min(max(come_back.after_s, 0.0) + jitter_s, LONGEST_ASKED_S)
        log.info('sent_away again_in_s=%.1f reason="%s"', wait_s, come_back.reason)
        return wait_s
