"""One offered task: what goes in, what comes out. `edge_client.work` does it, in a process of the executor's choice."""

from collections.abc import Callable
from dataclasses import dataclass

from common import pb

Progress = Callable[[str, float], None]  # phase, fraction of it done


@dataclass(frozen=True)
class AgentConfig:
    """What the device's owner said about one agent: its data (a path, or named data of the run) and its learner."""

    name: str
    data: str | None = None  # a folder or an npz; None with `named`
    named: bool = False
    learner: str = "auto"
    share_counts: bool = False


@dataclass(frozen=True)
class Job:
    """An offer whose payloads are all in Blobs, with the agent's held Memory (None: it has none)."""

    offer: pb.Offer
    agent: AgentConfig
    memory: pb.Record | None = None
    memory_limit_bytes: int | None = None  # above the idle process; enforced on child processes only


@dataclass(frozen=True)
class Finished:
    """Work or evaluation that ended well; every payload of `reply` and `memory` is in Blobs.

    Both are None after evaluations: nothing of theirs is kept.
    """

    reply: pb.Record | None
    memory: pb.Record | None
    report: pb.ResourceReport
    evaluations: tuple[pb.Evaluation, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """The method's own answer: nothing to do here."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """The task raised, or its process died; `cannot` when trying again can not help (data, learner, memory)."""

    reason: str
    cannot: bool = False


@dataclass(frozen=True)
class PreparedData:
    """The answer to a PREPARE offer: the agent's data under the run's class list."""

    data: pb.DataFacts
    classes: tuple[str, ...]  # names in label order


Outcome = Finished | Skipped | Failed | PreparedData
