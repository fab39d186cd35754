"""One offered task, done: what goes in, what comes out.

`run_job` is a plain function of its arguments and the blobs; the process that it runs in is the executor's choice.
Evaluation moments come after the work and have random numbers of their own, so that they change nothing of it.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common import methods, models, pb, seeds
from common.errors import ConfigError, LocalFault
from common.meter import Measured, Meter
from common.method import Method, ModelSpec, RunSpec, Skip, Training
from common.payloads import Encoding
from common.runfile import Run
from common.wire import records
from edge_client import accelerator, evaluation, learners
from edge_client.data import opening
from edge_client.data.agent_data import AgentData, facts, under
from edge_client.data.loaded import LoadedSource, loaded
from edge_client.evaluation import Held, Ruler
from edge_client.site import Embeddings, TaskSite, Trained, Views, views
from edge_client.workplace import Workplace

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
    memory_limit_bytes: int | None = None  # enforced on child processes only


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
    classes: tuple[str, ...] = field(default_factory=tuple)


Outcome = Finished | Skipped | Failed | PreparedData


def run_job(job: Job, place: Workplace, progress: Progress, *, isolated: bool = False) -> Outcome:
    """Do it. With `isolated`, one batch of the same task is trained first and dropped, so that all is loaded.

    Raises:
        ConfigError: the agent cannot: its data, its learner.
        FederationError: anything else that went wrong and was foreseen.
    """
    if job.offer.key.kind == pb.PREPARE:
        return _prepared(job, place)
    begin = time.monotonic()
    task = _Task(job, place, progress)
    try:
        outcome = task.evaluate() if job.offer.key.kind == pb.EVALUATE else task.work(isolated=isolated)
    except Skip as skip:
        return Skipped(str(skip))
    place.is_warm = True
    outcome.report.wall_s = time.monotonic() - begin
    return outcome


def _prepared(job: Job, place: Workplace) -> PreparedData:
    run = place.run_of(job.offer)
    spec = run.at(max(1, job.offer.round))
    learners.choose(job.agent.learner, spec.model, objective=spec.training.objective)
    data = _open(job, run, spec)
    _check_budget(job, spec, len(data.classes))
    wanted = _input(spec.model)
    if wanted is not None:
        opening.check_shape(data, wanted, spec.model.name)
    return PreparedData(facts(data, share_counts=job.agent.share_counts), data.classes)


def _check_budget(job: Job, spec: RunSpec[Any], n_classes: int) -> None:
    """Refuses a model that alone takes more than the agent may use; what batches take comes on top."""
    limit = job.memory_limit_bytes
    if limit is None:
        return
    training = spec.training
    options = training.objective_options
    model = models.load(spec.model, n_classes, objective=training.objective, objective_options=options)
    needed = models.training_bytes(model.parameters(), training)
    if needed > limit:
        raise ConfigError(
            f"model {spec.model.name!r} does not fit agent {job.agent.name}: training it takes {needed / 1e6:.1f} MB "
            f"for parameters, gradients and optimiser state, and the agent's memory budget is {limit / 1e6:.1f} MB; "
            f"choose a smaller model or raise the budget"
        )


def _open(job: Job, run: Run, spec: RunSpec[Any]) -> AgentData:
    section, shape = run.file.data, _input(spec.model)
    if job.agent.named:
        if not job.offer.HasField("data"):
            raise LocalFault(f"run {run.name} gave agent {job.agent.name} no place among those with named data")
        data = opening.open_part(section, job.offer.data, shape)
    elif job.agent.data is not None:
        data = opening.open_path(Path(job.agent.data), job.agent.name, section, shape)
    else:
        raise ConfigError(f"agent {job.agent.name} has no data: start it with --data PATH or --data named")
    return under(data, None if spec.head == "agent" else spec.classes)


def _input(model: ModelSpec) -> tuple[int, ...] | None:
    text = getattr(models.options_of(model), "input", None)
    return None if text is None else models.shape_of(text)


class _Task:
    """A WORK or EVALUATE job under way: everything that its steps share."""

    def __init__(self, job: Job, place: Workplace, progress: Progress) -> None:
        offer = job.offer
        self.job, self.place, self.progress = job, place, progress
        self.meter = Meter()
        where = f"run {offer.key.run}, round {offer.round}, agent {offer.key.agent}"
        with self.meter.phase("decode"):
            self.run = place.run_of(offer)
            self.spec = self.run.at(offer.round)
            self.method: Method = methods.load(self.spec.method)
            self.task = self._decoded(self.method.Task, offer.task, f"{where}, task")
            no_memory = job.memory is None
            self.memory = (
                self.method.Memory() if no_memory else self._decoded(self.method.Memory, job.memory, f"{where}, memory")
            )
        with self.meter.phase("load_data"):
            opened = _open(job, self.run, self.spec)
            self.classes = opened.classes
            self.ruler = Ruler(self.run.file.evaluation, opened.train.counts() > 0)
            self.views, self.source = self._views(opened)

    def work(self, *, isolated: bool) -> Finished:
        if isolated:
            self._warm_up()
        site = self._site("work")
        self.progress("train", 0.0)
        accelerator.forget_peak()
        with self.meter.measuring() as whole, self.source.touched() as touched, self.meter.phase("train"):
            reply, memory = self.method.work(self.task, self.memory, site)
        whole.data_bytes, whole.model_bytes = touched.n_bytes, site.trained.model_bytes
        whole.n_samples = site.trained.n_samples or touched.n
        report = self._report(site.trained, isolated=isolated)
        with self.meter.phase("commit"):
            reply_record = self._encoded(reply, self.spec.encodings.up)
            memory_record = self._encoded(memory, "exact")
        before, after = Held(self.task, None, self.memory), Held(self.task, reply, memory)
        evaluations = self._moments({"start": before, "trained": after})
        self._seconds(report)
        return Finished(reply_record, memory_record, report, evaluations)

    def evaluate(self) -> Finished:
        held = Held(self.task, None, self.memory)
        with self.meter.measuring() as whole, self.source.touched() as touched:
            evaluations = self._moments({"merged": held, "finetuned": held})
        whole.data_bytes, whole.n_samples = touched.n_bytes, touched.n
        report = self._report(Trained(), isolated=False)
        self._seconds(report)
        return Finished(None, None, report, evaluations)

    def _moments(self, known: dict[str, Held]) -> tuple[pb.Evaluation, ...]:
        found: list[pb.Evaluation] = []
        with self.meter.phase("evaluate"):
            for moment in self.job.offer.moments:
                if moment not in known:
                    raise LocalFault(f"moment {moment!r} cannot be taken here, only {', '.join(known)}")
                self.progress("evaluate", 0.0)
                site = self._site(moment)
                if moment == "finetuned":
                    found += evaluation.finetuned(self.method, known[moment], site, self.ruler)
                else:
                    found += evaluation.measured(self.method, known[moment], site, moment, self.ruler)
        return tuple(found)

    def _warm_up(self) -> None:
        """One batch of this task, dropped: loads libraries and sizes their pools."""
        once = replace(self.spec.training, epochs=1, steps=1)
        site = self._site("warm up", training=once, meter=Meter())
        with suppress(Skip):  # the work itself will say so
            self.method.work(self.task, self.memory, site)
        self.views, self.source = self._views(_open(self.job, self.run, self.spec))

    def _views(self, opened: AgentData) -> tuple[Views, LoadedSource]:
        data, source = loaded(opened)
        rng = seeds.generator(self.run.file.run.seed, self.job.agent.name, "holdout")
        return views(data, self.run.file.data.holdout, rng), source

    def _site(self, purpose: str, *, training: Training | None = None, meter: Meter | None = None) -> TaskSite:
        """A site with the random numbers of one purpose; steps of one round differ by their phase."""
        offer = self.job.offer
        name = purpose if offer.phase in ("", "train") else f"{purpose} {offer.phase}"
        return TaskSite(
            self.spec,
            self.job.agent.name,
            self.classes,
            self.views,
            self.source,
            rng=seeds.generator(self.spec.seed, offer.round, self.job.agent.name, name),
            training=training,
            preference=self.job.agent.learner,
            # spans and counts of evaluations and of the warming up are no part of what the work cost
            meter=self.meter if purpose == "work" else meter or Meter(),
            embeddings=Embeddings() if purpose == "warm up" else self.place.embeddings,
            check=lambda: self.progress(offer.phase or "train", 0.0),
        )

    def _decoded(self, kind: Any, record: Any, where: str) -> Any:  # Any: records of the method's own types
        blobs = self.place.blobs
        return records.decode(kind, record, lambda ref, _: blobs.open(ref, where=where), where=where)

    def _encoded(self, obj: Any, encoding: Encoding) -> pb.Record:  # Any: a record of the method's own type
        return records.encode(obj, lambda payload: self.place.blobs.put(payload, encoding))

    def _report(self, trained: Trained, *, isolated: bool) -> pb.ResourceReport:
        report = to_report(self.meter.measured)
        report.accelerator_peak_bytes = accelerator.peak_bytes()
        report.loss, report.n_steps = trained.loss, trained.n_steps
        report.isolated, report.warmup = isolated, not (self.place.is_warm or isolated)
        return report

    def _seconds(self, report: pb.ResourceReport) -> None:
        """All phases, those after the measured part too; loading within the training counts as loading."""
        seconds = self.meter.measured.seconds
        if "train" in seconds:
            seconds["train"] -= self.source.load_s
        seconds["load_data"] += self.source.load_s
        report.seconds.update(seconds)


def to_report(measured: Measured) -> pb.ResourceReport:
    """The meter's figures as they travel."""
    whole = measured.whole
    return pb.ResourceReport(
        cpu_s=whole.cpu_s,
        rss_start_bytes=whole.rss_start_bytes,
        rss_peak_bytes=whole.rss_peak_bytes,
        rss_peak_delta_bytes=whole.rss_peak_delta_bytes,
        vm_hwm_bytes=measured.vm_hwm_bytes,
        data_bytes=whole.data_bytes,
        model_bytes=whole.model_bytes,
        n_samples=whole.n_samples,
        counts=measured.counts,
        spans=[
            pb.Span(
                name=span.name,
                seconds=span.seconds,
                cpu_s=span.cpu_s,
                rss_peak_delta_bytes=span.rss_peak_delta_bytes,
                n_samples=span.n_samples,
                data_bytes=span.data_bytes,
                model_bytes=span.model_bytes,
            )
            for span in measured.spans
        ],
    )
