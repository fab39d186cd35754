"""Who is there, and what goes to and comes from them: the engines' only view of the transport.

Every function may be called from any thread. A `Line` is the way to one host; the front makes it. Messages are
pushed, so an idle host costs its stream and an entry here, and an offer is on its way in the call that makes it.
"""

import hashlib
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from common import pb
from common.errors import RemoteFault
from common.task_key import Key
from server.events import AboutTask, Event, Gone, Joined, Prepared, Progressed, Refused, Replied, Took, Transferred
from server.identity import check_agent

log = logging.getLogger(__name__)


class Line(Protocol):
    """The way to one host."""

    def push(self, event: pb.ServerEvent) -> None:
        """Send it soon; never blocks, never raises."""
        ...

    def end(self, event: pb.ServerEvent) -> None:
        """Send it as the last message, then close the stream."""
        ...


@dataclass(frozen=True)
class Present:
    """One agent as it said hello, and whether its host is connected now."""

    name: str
    host: str
    online: bool
    description: pb.AgentDescription
    hello: pb.Hello  # of its host: device, learners, methods, encodings, budgets, workers
    last_seen_at: float  # Unix seconds
    working_on: Key | None = None


@dataclass
class _Host:
    hello: pb.Hello
    line: Line | None
    last_seen_at: float


class _Open(NamedTuple):
    """An offer that has been pushed: the payloads that it names, all that it says, and the stream that took it."""

    key: Key
    digests: frozenset[bytes]
    said: bytes  # digest, without the deadline
    line: Line | None


@dataclass
class _Offered:
    """Of one agent: its open offers, and the one it works on.

    At most one offer of a kind for each run: what it may fetch is bounded, whatever the engines do.
    """

    open: dict[tuple[str, "pb.TaskKind"], _Open] = field(default_factory=dict)
    working_on: Key | None = None


class Fleet:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}
        self._host_of: dict[str, str] = {}
        self._offered: dict[str, _Offered] = defaultdict(_Offered)
        self._engines: dict[str, list[queue.SimpleQueue[Event]]] = defaultdict(list)

    # ------------------------------------------------------------------ for the engines

    def agents(self) -> tuple[Present, ...]:
        """All agents that ever said hello, by name."""
        with self._lock:
            return tuple(
                Present(
                    name=description.name,
                    host=name,
                    online=host.line is not None,
                    description=description,
                    hello=host.hello,
                    last_seen_at=host.last_seen_at,
                    working_on=offered.working_on if (offered := self._offered.get(description.name)) else None,
                )
                for description, name, host in sorted(
                    ((d, name, host) for name, host in self._hosts.items() for d in host.hello.agents),
                    key=lambda row: row[0].name,
                )
            )

    def offer(self, offer: pb.Offer) -> bool:
        """Push a task to its agent and let it fetch what the task names; False when its host is not connected.

        Once for each stream: who joins as the engine offers is there already, and is heard of afterwards.
        """
        key = Key.of(offer.key)
        digests = frozenset([offer.run.sha256, *(ref.sha256 for ref in offer.task.payloads)])
        said = _said(offer)
        with self._lock:
            line = self._line(key.agent)
            if line is None:
                return False
            pushed, before = _Open(key, digests, said, line), self._offered[key.agent].open
            if before.get((key.run, key.kind)) != pushed:
                before[key.run, key.kind] = pushed
                line.push(pb.ServerEvent(offer=offer))  # under the lock: an offer and its withdrawal keep their order
        return True

    def withdraw(self, key: Key, reason: str) -> None:
        """Take an offer back; the agent may fetch no more for it."""
        with self._lock:
            self._close(key)
            line = self._line(key.agent)
            if line is not None:
                line.push(pb.ServerEvent(withdrawn=pb.Withdrawn(key=key.message(), reason=reason)))

    def forget(self, run: str) -> None:
        """The run is over: nobody may fetch for it any more."""
        with self._lock:
            for offered in self._offered.values():
                for place in [place for place in offered.open if place[0] == run]:
                    del offered.open[place]

    def subscribe(self, run: str) -> "queue.SimpleQueue[Event]":
        """A queue of what concerns this run: its own tasks, and all that come and go."""
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._lock:
            self._engines[run].append(events)
        return events

    def unsubscribe(self, run: str) -> None:
        with self._lock:
            self._engines.pop(run, None)

    # ------------------------------------------------------------------ for the front

    def restore(self, hellos: Iterable[tuple[pb.Hello, float]]) -> None:
        """Hosts known from before a restart, with the time they were last seen; offline until they join."""
        with self._lock:
            for hello, seen_at in hellos:
                self._enter(hello, None, seen_at)

    def join(self, hello: pb.Hello, line: Line) -> None:
        """Connect a host.

        Same name and same instance replaces the old stream, which may be half-open.

        Raises:
            RemoteFault: another instance of that name is connected.
        """
        with self._lock:
            before = self._hosts.get(hello.host)
            if before is not None and before.line is not None:
                if before.hello.instance != hello.instance:
                    raise RemoteFault(
                        f"host {hello.host} is already connected from another installation"
                        f" ({before.hello.device.machine or 'unknown machine'}); give this one its own --name,"
                        f" or stop the other: expected instance {before.hello.instance}, got {hello.instance}"
                    )
                before.line.end(pb.ServerEvent(refused=pb.Refused(reason="replaced by a newer stream of this host")))
            dropped = self._names(before) - {agent.name for agent in hello.agents} if before is not None else set()
            self._enter(hello, line, time.time())
            if dropped:
                self._tell_all(Gone(tuple(sorted(dropped))))
            self._tell_all(Joined(tuple(sorted(agent.name for agent in hello.agents))))
        log.info("host_joined host=%s agents=%d version=%s", hello.host, len(hello.agents), hello.version)

    def left(self, host: str, line: Line) -> None:
        """This stream of the host has ended; nothing happens when another one has replaced it."""
        with self._lock:
            entry = self._hosts.get(host)
            if entry is None or entry.line is not line:
                return
            entry.line = None
            entry.last_seen_at = time.time()
            names = tuple(sorted(self._names(entry)))
            for name in names:
                offered = self._offered[name]
                offered.working_on = None
                offered.open = {place: pushed._replace(line=None) for place, pushed in offered.open.items()}
            self._tell_all(Gone(names))
        log.info("host_left host=%s agents=%d", host, len(names))

    def heard(self, host: str, message: pb.AgentEvent) -> None:
        """What a host said about a task.

        Raises:
            RemoteFault: it spoke for an agent that is not its own.
        """
        event = event_of(message)
        if event is None:
            return
        agent = event.key.agent
        check_agent(host, agent)
        with self._lock:
            if self._host_of.get(agent) != host:
                raise RemoteFault(f"host {host} speaks for an agent that its hello did not name: {agent!r}")
            self._hosts[host].last_seen_at = time.time()
        self.tell(event)

    def tell(self, event: AboutTask) -> None:
        """Pass an event on to the engine of its run."""
        with self._lock:
            match event:
                case Took(key):
                    self._offered[key.agent].working_on = key
                case Refused(key) | Replied(key) | Prepared(key):
                    self._close(key)
            for events in self._engines.get(event.key.run, ()):
                events.put(event)

    def may_fetch(self, agent: str, sha256: bytes) -> bool:
        """Whether an open offer to this agent names that payload."""
        with self._lock:
            offered = self._offered.get(agent)
            return offered is not None and any(sha256 in pushed.digests for pushed in offered.open.values())

    def send_away(self, after_s: float, jitter_s: float, reason: str) -> None:
        """Ask every host to come back later, and end its stream."""
        last = pb.ServerEvent(come_back=pb.ComeBack(after_s=after_s, jitter_s=jitter_s, reason=reason))
        with self._lock:
            for host in self._hosts.values():
                if host.line is not None:
                    host.line.end(last)

    # ------------------------------------------------------------------ under the lock

    def _line(self, agent: str) -> Line | None:
        host = self._hosts.get(self._host_of.get(agent, ""))
        return None if host is None else host.line

    def _enter(self, hello: pb.Hello, line: Line | None, seen_at: float) -> None:
        before = self._hosts.get(hello.host)
        if before is not None:
            for name in self._names(before):
                self._host_of.pop(name, None)
        self._hosts[hello.host] = _Host(hello, line, seen_at)
        for agent in hello.agents:
            self._host_of[agent.name] = hello.host

    def _close(self, key: Key) -> None:
        offered = self._offered.get(key.agent)
        if offered is None:
            return
        place = key.run, key.kind
        if place in offered.open and offered.open[place].key == key:  # not that of a later step
            del offered.open[place]
        if offered.working_on == key:
            offered.working_on = None

    def _tell_all(self, event: Event) -> None:
        for queues in self._engines.values():
            for events in queues:
                events.put(event)

    @staticmethod
    def _names(host: _Host) -> set[str]:
        return {agent.name for agent in host.hello.agents}


def _said(offer: pb.Offer) -> bytes:
    timeless = pb.Offer()
    timeless.CopyFrom(offer)
    timeless.ClearField("deadline_s")
    return hashlib.sha256(timeless.SerializeToString(deterministic=True)).digest()


def event_of(message: pb.AgentEvent) -> AboutTask | None:
    """What an agent's message means to an engine; None for hello, leaving, and kinds newer than this server."""
    match message.WhichOneof("kind"):
        case "accepted":
            return Took(Key.of(message.accepted.key))
        case "declined":
            declined = message.declined
            return Refused(Key.of(declined.key), declined.why, declined.reason, declined.memory_step)
        case "prepared":
            prepared = message.prepared
            return Prepared(Key.of(prepared.key), prepared.data, tuple(prepared.classes))
        case "progress":
            progress = message.progress
            return Progressed(Key.of(progress.key), progress.phase, progress.fraction)
        case "transfer":
            return Transferred(Key.of(message.transfer.key), message.transfer)
        case _:
            return None
