"""An agent with a fake executor, joined to a scripted server, and offers for it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scripted_federation import Federation

from common import pb
from common.blobs import Blobs
from common.payloads import Blob
from common.task_key import Key
from edge_client import folder as state_folder
from edge_client.agent import Agent, Setup
from edge_client.certificate import Tls
from edge_client.job import AgentConfig, Finished, Job, Outcome, Progress
from edge_client.link import Backoff, Link

NO_WAIT = Backoff(first_s=0.001, most_s=0.02, slow_first_s=0.001, slow_most_s=0.02)


def quick() -> Backoff:
    return Backoff(NO_WAIT.first_s, NO_WAIT.most_s, NO_WAIT.slow_first_s, NO_WAIT.slow_most_s)


@dataclass
class FakeExecutor:
    """Answers with `do`; by default a reply and a memory of one payload each, named after the task."""

    blobs: Blobs
    n_tasks: int = 1
    jobs: list[Job] = field(default_factory=list)
    cancelled: list[Key] = field(default_factory=list)
    do: Callable[[Job, Progress], Outcome] | None = None
    reply_bytes: int = 20_000

    def run(self, job: Job, progress: Progress) -> Outcome:
        self.jobs.append(job)
        return self.finished(job) if self.do is None else self.do(job, progress)

    def finished(self, job: Job) -> Finished:
        key = job.offer.key
        if key.kind != pb.WORK:
            return Finished(None, None, pb.ResourceReport(), (pb.Evaluation(moment="merged", n=3),))
        text = f"{key.run}/{key.step}/{key.agent}/".encode()
        return Finished(
            reply=pb.Record(payloads=[self.blobs.put(Blob("r", text * (self.reply_bytes // len(text))))]),
            memory=pb.Record(payloads=[self.blobs.put(Blob("m", text))]),
            report=pb.ResourceReport(),
        )

    def cancel(self, key: Key) -> None:
        self.cancelled.append(key)

    def close(self) -> None:
        pass


@dataclass
class Device:
    """A state folder with an agent that can be started, stopped and, in effect, killed."""

    path: Path
    server: Federation
    names: tuple[str, ...] = ("h",)
    n_tasks: int = 1
    tls: Tls | None = None

    @contextlib.contextmanager
    def running(self, executor: FakeExecutor | None = None) -> Iterator[FakeExecutor]:
        with state_folder.opened(self.path) as folder:
            executor = executor or self.executor()
            self.broken: list[Exception] = []
            setup = Setup(
                agents=tuple(AgentConfig(name, data="unused") for name in self.names),
                hello=pb.Hello(
                    host="h", instance=folder.instance, agents=[pb.AgentDescription(name=name) for name in self.names]
                ),
                new_backoff=quick,
            )
            link = Link(self.server.address, "h", self.tls)
            self.agent = Agent(setup, link, folder, executor, self.broken.append)
            thread = threading.Thread(target=self.agent.run)
            thread.start()
            try:
                yield executor
            finally:
                self.agent.stop("the test ends")
                thread.join()
                assert self.broken == []

    def executor(self) -> FakeExecutor:
        return FakeExecutor(Blobs(self.path / "blobs"), n_tasks=self.n_tasks)


def work(server: Federation, step: int, *, agent: str = "h", run: str = "r", method: str = "fedavg", **fields: object):
    """An offer of work; by default to an agent that holds nothing."""
    fields = {"memory_step": -1, "merged_step": -1, "expects_reply": True, **fields}
    kind, more = fields.pop("kind", pb.WORK), fields.pop("more", "")
    task = fields.pop("task", None) or pb.Record(payloads=[server.payload(f"model {step}".encode() * 2000)])
    key = pb.TaskKey(run=run, step=step, agent=agent, kind=kind)
    return pb.Offer(key=key, run=server.run(method, run, more), task=task, **fields)
