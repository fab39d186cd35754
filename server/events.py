"""What the fleet tells the engines: plain values in a queue."""

from dataclasses import dataclass

from common import pb
from common.task_key import Key


@dataclass(frozen=True)
class Joined:
    """These agents can be offered tasks now. What was offered to them before may have been lost: offer it again."""

    agents: tuple[str, ...]


@dataclass(frozen=True)
class Gone:
    agents: tuple[str, ...]


@dataclass(frozen=True)
class Took:
    """The agent has the offer and will work on it, now or after those before it."""

    key: Key


@dataclass(frozen=True)
class Refused:
    key: Key
    why: "pb.Decline"
    reason: str
    memory_step: int  # with OTHER_MEMORY: the step whose memory the agent holds, -1 for none


@dataclass(frozen=True)
class Prepared:
    key: Key
    data: pb.DataFacts
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Replied:
    """A reply is durable and its receipt is on the way; the journal has it."""

    key: Key


@dataclass(frozen=True)
class Transferred:
    key: Key
    report: pb.TransferReport


@dataclass(frozen=True)
class Progressed:
    key: Key
    phase: str
    fraction: float


AboutTask = Took | Refused | Prepared | Replied | Transferred | Progressed
Event = Joined | Gone | AboutTask
