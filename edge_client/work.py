"""A job, done: a plain function of the job and of what the process keeps.

Evaluation moments come after the work and have random numbers of their own, so that they change nothing of it.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from common import methods, pb, seeds
from common.errors import RemoteFault
from common.meter import Measured, Meter
from common.method import Method, Scores, Skip, Training
from common.payloads import Encoding
from common.samples import Samples
from common.wire import records
from edge_client import accelerator, evaluation
from edge_client.data.agent_data import AgentData
from edge_client.data.loaded import LoadedSource, loaded
from edge_client.evaluation import Held, Ruler
from edge_client.features import encoded
from edge_client.job import Finished, Job, Outcome, Progress, Skipped
from edge_client.prepare import model_input, open_as_they_are, open_data, prepared
from edge_client.site import Embeddings, TaskSite, Trained, Views, views
from edge_client.workplace import Workplace

Inputs = Callable[[AgentData, tuple[int, ...] | None], Samples]  # for an agent's data and what its model takes
AT_ONCE = 256  # samples that are predicted at a time


def run_job(job: Job, place: Workplace, progress: Progress, *, isolated: bool = False) -> Outcome:
    """Do it. With `isolated`, one batch of the same task is trained first and dropped, so that all is loaded.

    Raises:
        ConfigError: the agent cannot: its data, its learner.
        FederationError: anything else that went wrong and was foreseen.
    """
    if job.offer.key.kind == pb.PREPARE:
        return prepared(job, place)
    begin = time.monotonic()
    task = _Task(job, place, progress)
    try:
        outcome = task.evaluate() if job.offer.key.kind == pb.EVALUATE else task.work(isolated=isolated)
    except Skip as skip:
        return Skipped(str(skip))
    place.is_warm = True
    outcome.report.wall_s = time.monotonic() - begin
    return outcome


def predictions(job: Job, place: Workplace, inputs: Inputs) -> tuple[tuple[str, ...], dict[str, Scores]]:
    """Class names, and for each reading the scores (n, n_classes) of samples that are none of the agent's.

    The model is the one that an evaluation by this job's offer would measure.

    Raises:
        ConfigError: the samples do not fit, or the agent's own data cannot be opened any more.
    """
    return _Task(job, place, lambda phase, fraction: None).predict(inputs)


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
            opened = open_data(job, self.run, self.spec)
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
        self._move_loading("train")
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

    def predict(self, inputs: Inputs) -> tuple[tuple[str, ...], dict[str, Scores]]:
        samples = inputs(open_as_they_are(self.job, self.run, self.spec), model_input(self.spec.model))
        none = samples.take(np.arange(0))
        seen = encoded(AgentData("inputs", self.classes, samples, none), self.spec.model).train
        parts = [seen.take(np.arange(i, min(i + AT_ONCE, len(seen)))) for i in range(0, len(seen), AT_ONCE)]
        site = self._site("merged")
        found = [self.method.predict(self.task, None, self.memory, site, part) for part in parts]
        return self.classes, {
            reading: self.ruler.ruled(np.concatenate([f[reading] for f in found])) for reading in found[0]
        }

    def _moments(self, known: dict[str, Held]) -> tuple[pb.Evaluation, ...]:
        found: list[pb.Evaluation] = []
        with self.meter.phase("evaluate"):
            for moment in self.job.offer.moments:
                if moment not in known:
                    raise RemoteFault(f"moment {moment!r} cannot be taken here, only {', '.join(known)}")
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
        self.views, self.source = self._views(open_data(self.job, self.run, self.spec))

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
            # spans and counts of moments within the work, and of the warming up, are no part of what the work cost
            meter=self.meter if purpose in ("work", "merged") else meter or Meter(),
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
        report.n_steps = trained.n_steps
        if trained.loss is not None:
            report.loss = trained.loss
        report.isolated, report.warmup = isolated, not (self.place.is_warm or isolated)
        return report

    def _seconds(self, report: pb.ResourceReport) -> None:
        """All phases, those after the measured part too."""
        self._move_loading("evaluate")
        report.seconds.update(self.meter.measured.seconds)

    def _move_loading(self, phase: str) -> None:
        """What was loaded within a phase counts as loading."""
        seconds, loaded_s = self.meter.measured.seconds, self.source.load_s
        self.source.load_s = 0.0
        seconds["load_data"] += loaded_s
        if phase in seconds:
            seconds[phase] -= loaded_s


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
