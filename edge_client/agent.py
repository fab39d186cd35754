"""edge-agent at work: one Join stream, offers first in first out, one thread per task that may run at a time.

The story of one offer: `presence` hears it, `offers` holds it, `task` fetches, runs, commits and submits it, `memory`
keeps what it left. Nothing that a server answers ends an agent; only its owner does.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from common import pb
from common.blobs import Blobs
from common.errors import LocalFault
from common.task_key import Key
from edge_client.executor import Executor
from edge_client.folder import Folder
from edge_client.job import AgentConfig
from edge_client.keep import Keep
from edge_client.link import Backoff, Link
from edge_client.memory import Archive
from edge_client.offers import InHand, Offers
from edge_client.presence import Ending, Presence
from edge_client.task import Desk, decline, work_on
from edge_client.transfer import Transfers

log = logging.getLogger(__name__)

SUBMIT_GRACE_S = 3.0  # at the end, for replies that are on their way
LEAVE_GRACE_S = 2.0  # and for the server to hear that we go
WORKER_GRACE_S = 1.0
MEMORY_KEPT_S = 90 * 86400.0
UNFINISHED_KEPT_S = 7 * 86400.0  # downloads that broke off; what came of them is used when they are offered again


@dataclass(frozen=True)
class Setup:
    """What the owner of the device decided."""

    agents: tuple[AgentConfig, ...]
    hello: pb.Hello
    memory_limit_bytes: int | None = None
    new_backoff: Callable[[], Backoff] = field(default=Backoff)


class Agent:
    """All agents of one host, on one link. `run` blocks; `stop` may be called once, from any other thread.

    `broken` is told, from any thread, when a thread that works on tasks has died: it is time to stop then, for the
    agent is joined and accepts what nobody will do.
    """

    def __init__(
        self, setup: Setup, link: Link, folder: Folder, executor: Executor, broken: Callable[[Exception], None]
    ) -> None:
        self._broken = broken
        self._names = frozenset(agent.name for agent in setup.agents)
        self._link, self._executor = link, executor
        self._offers = Offers()
        self._presence = Presence(link, setup.hello, self._heard, backoff=setup.new_backoff())
        blobs, memories = Blobs(folder.blobs, durable=False), Archive(folder.memory)
        blobs.tidy(time.time() - UNFINISHED_KEPT_S)
        memories.forget(time.time() - MEMORY_KEPT_S)
        self._keep = Keep(blobs, memories, self._offers)
        self._keep.check()
        self._desk = Desk(
            configs={agent.name: agent for agent in setup.agents},
            blobs=blobs,
            memories=memories,
            transfers=Transfers(link, blobs, self._presence, setup.new_backoff),
            executor=executor,
            tell=self._presence.send,
            remember=self._keep.remember,
            memory_limit_bytes=setup.memory_limit_bytes,
        )
        self._workers = [
            threading.Thread(target=self._work, name=f"task-{n}", daemon=True) for n in range(executor.n_tasks)
        ]

    def run(self) -> None:
        """Be there until `stop`."""
        for worker in self._workers:
            worker.start()
        self._presence.run()

    def stop(self, reason: str) -> bool:
        """Tell the server what is not done and end; False when a task in this process could not be ended."""
        unfinished = self._offers.close(SUBMIT_GRACE_S)
        log.info('ending unfinished=%d reason="%s"', len(unfinished), reason)
        self._presence.leave([_ending(key, reason) for key in unfinished], reason, LEAVE_GRACE_S)
        for key in unfinished:
            self._executor.cancel(key)
        self._executor.close()
        self._link.close()
        deadline = time.monotonic() + WORKER_GRACE_S
        for worker in self._workers:
            if worker.is_alive():
                worker.join(max(0.0, deadline - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def _heard(self, event: pb.ServerEvent, size_bytes: int) -> None:
        match event.WhichOneof("kind"):
            case "offer":
                self._take(event.offer, size_bytes)
            case "withdrawn":
                key = Key.of(event.withdrawn.key)
                log.info('withdrawn %s reason="%s"', key.logged, event.withdrawn.reason)
                self._cut_short(self._offers.withdraw(key))

    def _take(self, offer: pb.Offer, size_bytes: int) -> None:
        if offer.key.agent not in self._names:
            decline(InHand(offer), self._desk, pb.CANNOT, f"no such agent on this host: got {offer.key.agent[:80]!r}")
            return
        self._presence.send(pb.AgentEvent(accepted=pb.Accepted(key=offer.key)))
        self._cut_short(self._offers.put(offer, size_bytes, self._presence.server))

    def _cut_short(self, withdrawn: InHand | None) -> None:
        if withdrawn is not None and withdrawn.is_cancellable:
            self._executor.cancel(withdrawn.key)

    def _work(self) -> None:
        try:
            while (task := self._offers.take()) is not None:
                self._do(task)
        except BaseException as fault:  # what a thread raises is otherwise seen by nobody
            log.exception("worker_died")
            self._broken(LocalFault(f"a thread that works on tasks has died: {type(fault).__name__}: {fault}"))

    def _do(self, task: InHand) -> None:
        self._keep.begin(task.offer)
        try:
            log.info("task %s round=%d phase=%s", task.key.logged, task.offer.round, task.offer.phase)
            work_on(task, self._desk)
        except Ending:
            log.info("left_undone %s", task.key.logged)
        except Exception as fault:  # a broken task must not end the agent
            log.exception("task_broken %s", task.key.logged)
            decline(task, self._desk, pb.FAILED, f"fault in the agent: {type(fault).__name__}: {fault}")
        finally:
            self._offers.done(task)
            self._keep.end()


def _ending(key: Key, reason: str) -> pb.AgentEvent:
    return pb.AgentEvent(declined=pb.Declined(key=key.message(), why=pb.ENDING, reason=reason))
