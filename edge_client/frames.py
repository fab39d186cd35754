"""What an agent and its child processes say to each other over pipes: a kind, a length, a serialised message.

A job is OFFER, then MEMORY if there is one, then ORDER, which starts it. The answer is any number of PROGRESS and
one of FINISHED, DECLINED, PREPARED.
"""

import struct
from typing import IO

from google.protobuf.message import Message

from common import pb
from edge_client.job import AgentConfig, Failed, Finished, Job, Outcome, PreparedData, Skipped

OFFER, MEMORY, ORDER = b"O", b"M", b"G"
PROGRESS, FINISHED, DECLINED, PREPARED = b"P", b"F", b"D", b"R"
_HEAD = struct.Struct("<cI")


def write(pipe: IO[bytes], kind: bytes, message: Message) -> None:
    data = message.SerializeToString()
    pipe.write(_HEAD.pack(kind, len(data)) + data)
    pipe.flush()


def read(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next frame; None when the other side is gone."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, size = _HEAD.unpack(head)
    data = pipe.read(size)
    return (kind, data) if len(data) == size else None


def write_job(pipe: IO[bytes], job: Job, *, isolated: bool) -> None:
    write(pipe, OFFER, job.offer)
    if job.memory is not None:
        write(pipe, MEMORY, job.memory)
    agent = job.agent
    texts = {"name": agent.name, "learner": agent.learner} | ({} if agent.data is None else {"data": agent.data})
    flags = {"named": agent.named, "share_counts": agent.share_counts, "isolated": isolated}
    order = pb.Map(entries=[pb.Entry(key=k, value=pb.Value(text=v)) for k, v in texts.items()])
    order.entries.extend(pb.Entry(key=k, value=pb.Value(boolean=v)) for k, v in flags.items())
    if job.memory_limit_bytes is not None:
        order.entries.append(pb.Entry(key="memory_limit_bytes", value=pb.Value(integer=job.memory_limit_bytes)))
    write(pipe, ORDER, order)


def to_job(offer: bytes, memory: bytes | None, order: bytes) -> tuple[Job, bool]:
    """The job, and whether it is to be isolated."""
    given = {entry.key: entry.value for entry in pb.Map.FromString(order).entries}
    agent = AgentConfig(
        name=given["name"].text,
        data=given["data"].text if "data" in given else None,
        named=given["named"].boolean,
        learner=given["learner"].text,
        share_counts=given["share_counts"].boolean,
    )
    limit = given["memory_limit_bytes"].integer if "memory_limit_bytes" in given else None
    held = None if memory is None else pb.Record.FromString(memory)
    return Job(pb.Offer.FromString(offer), agent, held, limit), given["isolated"].boolean


def write_outcome(pipe: IO[bytes], outcome: Outcome) -> None:
    match outcome:
        case Finished(reply, memory, report, evaluations):
            header = pb.RecordHeader(record=reply, report=report, evaluations=evaluations)
            write(pipe, FINISHED, pb.Pending(reply=header, memory=memory))
        case Skipped(reason):
            write(pipe, DECLINED, pb.Declined(why=pb.SKIPPED, reason=reason))
        case Failed(reason, cannot):
            write(pipe, DECLINED, pb.Declined(why=pb.CANNOT if cannot else pb.FAILED, reason=reason))
        case PreparedData(data, classes):
            write(pipe, PREPARED, pb.Prepared(data=data, classes=classes))


def to_outcome(kind: bytes, data: bytes) -> Outcome:
    if kind == FINISHED:
        pending = pb.Pending.FromString(data)
        header = pending.reply
        reply = header.record if header.HasField("record") else None
        memory = pending.memory if pending.HasField("memory") else None
        return Finished(reply, memory, header.report, tuple(header.evaluations))
    if kind == PREPARED:
        prepared = pb.Prepared.FromString(data)
        return PreparedData(prepared.data, tuple(prepared.classes))
    declined = pb.Declined.FromString(data)
    if declined.why == pb.SKIPPED:
        return Skipped(declined.reason)
    return Failed(declined.reason, cannot=declined.why == pb.CANNOT)
