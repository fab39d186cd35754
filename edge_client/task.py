"""One offer, from the decision whether it can be worked on to the receipt of its reply."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from common import methods, pb
from common.blobs import Blobs
from common.errors import FederationError, LocalFault
from common.runfile import Run, from_blob
from common.wire.limits import Limits
from edge_client.executor import Executor
from edge_client.job import AgentConfig, Failed, Finished, Job, Outcome, PreparedData, Skipped
from edge_client.memory import Archive
from edge_client.offers import InHand
from edge_client.presence import Ending
from edge_client.telling import Telling
from edge_client.transfer import Traffic, Transfers, Withdrawn

log = logging.getLogger(__name__)

RUNS_READ = 8


@dataclass(frozen=True)
class Desk:
    """What tasks are done with; one for all threads of a process."""

    configs: Mapping[str, AgentConfig]
    blobs: Blobs
    memories: Archive
    transfers: Transfers
    executor: Executor
    tell: Callable[[pb.AgentEvent], None]
    remember: Callable[[str, pb.Offer, pb.Record | None], None]  # server, task, memory
    memory_limit_bytes: int | None = None
    runs: dict[bytes, Run] = field(default_factory=dict)  # by digest, those read last


def work_on(task: InHand, desk: Desk) -> None:
    """Do what the offer asks, and say how it ended.

    Raises:
        Ending: the agent is stopping; whatever was committed will be submitted after the next start.
    """
    started = time.monotonic()
    traffic = Traffic(bytes_down=task.offer_bytes)
    try:
        _work_on(task, desk, traffic, started)
    except Withdrawn:
        log.info("withdrawn %s", task.key.logged)
    except (FederationError, OSError) as fault:
        log.warning('task_failed %s reason="%s"', task.key.logged, fault)
        decline(task, desk, pb.FAILED, str(fault))


def decline(task: InHand, desk: Desk, why: "pb.Decline", reason: str, *, memory_step: int = 0) -> None:
    if not task.withdrawn.is_set():
        key = task.key.message()
        task.is_answered = True
        desk.tell(pb.AgentEvent(declined=pb.Declined(key=key, why=why, reason=reason, memory_step=memory_step)))


def _work_on(task: InHand, desk: Desk, traffic: Traffic, started: float) -> None:
    offer, key = task.offer, task.key
    run = _run_of(task, desk, traffic)
    keep_refused = _keeps_refused(run)
    if offer.key.kind != pb.PREPARE:
        desk.memories.of(task.server).settle(offer, keep_refused=keep_refused)
        _drop_lost_memory(task, desk)
        held_step = desk.memories.of(task.server).held_step(key.run, key.agent)
        if held_step != offer.memory_step:
            reason = f"expected the memory of step {offer.memory_step}, got {held_step} (-1: none)"
            # it is the reply to the offer as it was, and that will be another
            desk.memories.of(task.server).drop_pending(key.run, key.agent)
            decline(task, desk, pb.OTHER_MEMORY, reason, memory_step=held_step)
            return
    pending = _pending_reply(task, desk)
    if pending is not None:
        log.info("submit_again %s", key.logged)
        _deliver(pending.reply, task, desk, traffic, keep_refused=keep_refused)
        return
    limits = Limits(allow_non_finite=run.file.wire.non_finite == "allow")
    for ref in offer.task.payloads:
        desk.transfers.fetch(ref, task, traffic, limits=limits)
    outcome = _execute(task, desk, run, keep_refused=keep_refused)
    _answer(outcome, task, desk, traffic, keep_refused=keep_refused, started=started)


def _run_of(task: InHand, desk: Desk, traffic: Traffic) -> Run:
    ref = task.offer.run
    desk.transfers.fetch(ref, task, traffic, limits=Limits())
    run = desk.runs.get(ref.sha256)
    if run is None:
        run = from_blob(desk.blobs.open(ref, limits=Limits(), where=f"run {task.key.run}"))
        while len(desk.runs) >= RUNS_READ:
            desk.runs.pop(next(iter(desk.runs)), None)
        desk.runs[ref.sha256] = run
    return run


def _keeps_refused(run: Run) -> bool:
    return bool(getattr(methods.load(run.file.run.method), "KEEP_REFUSED", False))


def _is_evaluated_otherwise(run: Run) -> bool:
    """Whether the method's tasks of training are none to predict with."""
    return hasattr(methods.load(run.file.run.method), "plan_evaluation")


def _pending_reply(task: InHand, desk: Desk) -> pb.Pending | None:
    """The committed reply to this very offer: it is submitted again, the task never done again."""
    pending = desk.memories.of(task.server).pending(task.key.run, task.key.agent)
    if pending is None or pending.reply.key != task.offer.key:
        return None
    if n_lost := _n_lost(pending.reply.record, desk):
        log.error("reply_lost %s payloads=%d", task.key.logged, n_lost)
        desk.memories.of(task.server).drop_pending(task.key.run, task.key.agent)
        return None
    return pending


def _drop_lost_memory(task: InHand, desk: Desk) -> None:
    """Or every later task would fail on it; the server plans again for an agent that remembers nothing."""
    memories, key = desk.memories.of(task.server), task.key
    held = memories.held(key.run, key.agent)
    if held is not None and (n_lost := _n_lost(held.memory, desk)):
        log.error("memory_lost %s payloads=%d", task.key.logged, n_lost)
        memories.drop_held(key.run, key.agent)


def _n_lost(record: pb.Record, desk: Desk) -> int:
    """How many payloads are not there, although the disk said that they were durable."""
    return sum(not desk.blobs.has(ref.sha256) for ref in record.payloads)


def _memory_of(task: InHand, desk: Desk, run: Run, *, keep_refused: bool) -> pb.Record | None:
    """What the task begins with: the run's own memory, else that of the run before, if this one goes on with it."""
    memories, key, before = desk.memories.of(task.server), task.key, run.file.run.init_from
    held = memories.held(key.run, key.agent)
    if held is None and task.offer.HasField("earlier_step"):
        memories.close(before, key.agent, task.offer.earlier_step, keep_refused=keep_refused)
        held = memories.held(before, key.agent)
        if held is not None and (n_lost := _n_lost(held.memory, desk)):
            log.error("memory_lost %s of_run=%s payloads=%d", key.logged, before, n_lost)
            held = None
    return None if held is None else held.memory


def _execute(task: InHand, desk: Desk, run: Run, *, keep_refused: bool) -> Outcome:
    key, memory = task.key, _memory_of(task, desk, run, keep_refused=keep_refused)
    task.is_cancellable = not keep_refused  # what a purely local method has learnt stays, merged or not
    if task.withdrawn.is_set():
        raise Withdrawn
    if key.kind == pb.EVALUATE or (key.kind == pb.WORK and not _is_evaluated_otherwise(run)):
        desk.remember(task.server, task.offer, memory)
    job = Job(task.offer, desk.configs[key.agent], memory, desk.memory_limit_bytes)
    try:
        with Telling(task.offer.key, desk.tell) as tell:

            def progress(phase: str, fraction: float) -> None:
                if task.withdrawn.is_set() and task.is_cancellable:  # before the executor knew of the task, perhaps
                    desk.executor.cancel(key)
                tell(phase, fraction)

            return desk.executor.run(job, progress)
    finally:
        task.is_cancellable = False


def _answer(
    outcome: Outcome, task: InHand, desk: Desk, traffic: Traffic, *, keep_refused: bool, started: float
) -> None:
    match outcome:
        case Skipped(reason):
            log.info('task_skipped %s reason="%s"', task.key.logged, reason)
            decline(task, desk, pb.SKIPPED, reason)
        case Failed(reason, cannot):
            if task.withdrawn.is_set():
                raise Withdrawn
            if task.is_ending:
                raise Ending
            log.warning('task_failed %s reason="%s"', task.key.logged, reason)
            decline(task, desk, pb.CANNOT if cannot else pb.FAILED, reason)
        case PreparedData(data, classes):
            prepared = pb.Prepared(key=task.offer.key, data=data, classes=classes)
            task.is_answered = True
            desk.tell(pb.AgentEvent(prepared=prepared))
        case Finished():
            header = _header(outcome, task, traffic, started)
            if task.offer.key.kind == pb.WORK and task.offer.expects_reply:
                pending = pb.Pending(reply=header, memory=outcome.memory)
                desk.transfers.make_durable([*header.record.payloads, *pending.memory.payloads])
                desk.memories.of(task.server).commit(pending)
            _deliver(header, task, desk, traffic, keep_refused=keep_refused)


def _header(finished: Finished, task: InHand, traffic: Traffic, started: float) -> pb.RecordHeader:
    report = pb.ResourceReport()
    report.CopyFrom(finished.report)
    report.seconds["fetch"] = traffic.fetch_s
    report.wall_s = time.monotonic() - started
    expects_reply = task.offer.key.kind == pb.WORK and task.offer.expects_reply
    if expects_reply and (finished.reply is None or finished.memory is None):
        raise LocalFault(f"{task.key}: the task ended without a reply")
    return pb.RecordHeader(
        key=task.offer.key,
        record=finished.reply if expects_reply else None,
        report=report,
        evaluations=finished.evaluations,
    )


def _deliver(header: pb.RecordHeader, task: InHand, desk: Desk, traffic: Traffic, *, keep_refused: bool) -> None:
    key = task.key
    task.is_submitting = True
    try:
        receipt = desk.transfers.submit(header, task, traffic)
    except Withdrawn:
        if not task.is_overtaken:  # else the next offer says whether this step was merged
            _settle_refused(header, task, desk, keep_refused=keep_refused)
        raise
    if receipt.verdict != pb.ACCEPTED:
        _settle_refused(header, task, desk, keep_refused=keep_refused)
    if receipt.verdict == pb.REFUSED:  # the server's engine hears only of replies that were accepted
        log.warning('reply_refused %s reason="%s"', key.logged, receipt.reason)
        decline(task, desk, pb.FAILED, f"its reply was refused: {receipt.reason}")
    log.info(
        "submitted %s verdict=%s wall_s=%.3f bytes_up=%d bytes_down=%d%s",
        key.logged,
        pb.Verdict.Name(receipt.verdict).lower(),
        header.report.wall_s,
        traffic.bytes_up,
        traffic.bytes_down,
        f' reason="{receipt.reason}"' if receipt.reason else "",
    )
    desk.tell(pb.AgentEvent(transfer=traffic.report(header.key)))


def _settle_refused(header: pb.RecordHeader, task: InHand, desk: Desk, *, keep_refused: bool) -> None:
    pending = desk.memories.of(task.server).pending(header.key.run, header.key.agent)
    if pending is not None and pending.reply.key == header.key:  # evaluations have none
        desk.memories.of(task.server).refused(header.key.run, header.key.agent, keep_refused=keep_refused)
