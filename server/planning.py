"""What `plan` is given, and how its tasks become offers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common import pb, seeds
from common.blobs import Blobs
from common.method import AgentInfo, DataFacts, Method, RunSpec, SpanReport, Step
from common.wire import records
from server import retention
from server.fleet import Present
from server.journal import Journal

_RECENT = 4  # tasks that may be shared by agents that do not follow each other; each may hold a payload


@dataclass(frozen=True)
class Spans:
    """The latest report of each span of one agent, as the journal keeps them."""

    reports: tuple[SpanReport, ...] = ()
    warmups: tuple[str, ...] = ()  # names of those that are of a task which loaded its libraries


def facts(data: pb.DataFacts) -> DataFacts:
    return DataFacts(
        name=data.name,
        n_classes=data.n_classes,
        classes_sha256=data.classes_sha256.hex(),
        n_train=data.n_train,
        n_test=data.n_test,
        n_unlabelled=data.n_unlabelled,
        counts=tuple(data.counts) if data.has_counts else None,
    )


def agent_info(journal: Journal, run: str, present: Present) -> AgentInfo:
    """An agent that is ready for the run, as `plan` sees it now."""
    row = journal.row("SELECT prepared, memory_step, spans FROM agents WHERE run = ? AND agent = ?", run, present.name)
    if row is None:
        raise LookupError(f"run {run}: agent {present.name} is not ready")
    hello = present.hello
    return AgentInfo(
        name=present.name,
        data=facts(pb.Prepared.FromString(row["prepared"]).data),
        tags=tuple(present.description.tags),
        memory_bytes=hello.memory_budget_bytes if hello.HasField("memory_budget_bytes") else None,
        time_s=hello.time_budget_s if hello.HasField("time_budget_s") else None,
        memory_step=row["memory_step"],
        reports=decoded_spans(row["spans"]),
    )


def encoded(value: AgentInfo | Spans) -> bytes:
    return records.encode(value, _no_payload).SerializeToString()


def decoded_info(data: bytes) -> AgentInfo:
    info: AgentInfo = _decoded(AgentInfo, data)
    return info


def decoded_spans(data: bytes) -> tuple[SpanReport, ...]:
    return _spans(data).reports


def latest_spans(before: bytes, report: pb.ResourceReport, step: int) -> bytes:
    """The agent's spans with those of a new report put over them; the whole task is the span "train".

    A warm-up counts only until there is something better: an expert that was tried first would look too dear for ever.
    """
    known = _spans(before)
    latest, warmups = {span.name: span for span in known.reports}, set(known.warmups)
    whole = pb.Span(
        name="train",
        seconds=report.seconds.get("train", report.wall_s),
        rss_peak_delta_bytes=report.rss_peak_delta_bytes,
        n_samples=report.n_samples,
        data_bytes=report.data_bytes,
        model_bytes=report.model_bytes,
    )
    for span in (whole, *report.spans):
        if report.warmup and span.name in latest.keys() - warmups:
            continue
        if report.warmup:
            warmups.add(span.name)
        else:
            warmups.discard(span.name)
        latest[span.name] = SpanReport(
            name=span.name,
            step=step,
            seconds=span.seconds,
            rss_peak_delta_bytes=span.rss_peak_delta_bytes,
            n_samples=span.n_samples,
            data_bytes=span.data_bytes,
            model_bytes=span.model_bytes,
        )
    return encoded(Spans(tuple(latest[name] for name in sorted(latest)), tuple(sorted(warmups))))


def step_of(spec: RunSpec[Any], round_number: int, phase: str, number: int, purpose: str) -> Step:
    """A Step with a fresh stream: `plan` and `merge` each draw the same again after a restart."""
    return Step(round_number, phase, number, seeds.generator(spec.seed, round_number, phase, purpose))


def phases(method: Method, spec: RunSpec[Any], round_number: int) -> tuple[str, ...]:
    own: Callable[[RunSpec[Any], int], tuple[str, ...]] | None = getattr(method, "phases", None)
    return ("train",) if own is None else own(spec, round_number)


Plan = Callable[[RunSpec[Any], Any, tuple[AgentInfo, ...], Step], Iterator[tuple[AgentInfo, Any]]]


def evaluation_plan(method: Method) -> Plan:
    own: Plan | None = getattr(method, "plan_evaluation", None)
    return method.plan if own is None else own


@dataclass(frozen=True)
class Broadcast:
    """Turns tasks into offers; a Task or payload that several agents share is encoded once."""

    journal: Journal
    blobs: Blobs
    pin: str  # owner of the payloads while the step is open
    spec: RunSpec[Any]
    template: pb.Offer  # what all offers of this step have in common
    merged: Mapping[str, int]  # agent -> last step of it that was merged
    positions: Mapping[str, tuple[int, int]]  # agent -> index among those with named data, of how many
    earlier: Mapping[str, int] | None = None  # likewise of the run whose memories they begin with

    def offers(self, planned: Iterable[tuple[AgentInfo, Any]]) -> dict[str, pb.Offer]:
        recent: dict[int, tuple[Any, pb.Record]] = {}
        offers: dict[str, pb.Offer] = {}
        for info, task in planned:
            known = recent.pop(id(task), None)
            recent[id(task)] = known or (task, records.encode(task, self._put))
            while len(recent) > _RECENT:
                del recent[next(iter(recent))]
            offers[info.name] = self._offer(info, recent[id(task)][1])
        return offers

    def _offer(self, info: AgentInfo, task: pb.Record) -> pb.Offer:
        offer = pb.Offer()
        offer.CopyFrom(self.template)
        offer.key.agent = info.name
        offer.task.CopyFrom(task)
        offer.memory_step = info.memory_step
        offer.merged_step = self.merged.get(info.name, -1)
        if self.earlier is not None:
            offer.earlier_step = self.earlier.get(info.name, -1)
        if info.name in self.positions:
            index, of = self.positions[info.name]
            offer.data.CopyFrom(pb.DataIndex(index=index, of=of))
        return offer

    def _put(self, payload: Any) -> pb.PayloadRef:
        return retention.put_pinned(self.journal, self.blobs, self.pin, payload, self.spec.encodings.down)


def _spans(data: bytes) -> Spans:
    spans: Spans = _decoded(Spans, data) if data else Spans()
    return spans


def _decoded(cls: type, data: bytes) -> Any:
    return records.decode(cls, pb.Record.FromString(data), _no_payload, where="journal")


def _no_payload(*_: object) -> Any:
    raise TypeError("what plan is told of agents holds no payloads")
