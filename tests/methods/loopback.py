"""A federation in memory: no transport, no engine; every record goes through the real codec.

It does what the engine and the agent promise to a method: replies in the order of names, the commit rule for
Memory, a second plan for an agent that holds another memory than `plan` believed.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import seeds
from common.blobs import Blobs
from common.method import (
    AgentInfo,
    DataFacts,
    Learner,
    Model,
    ModelPart,
    RunSpec,
    Scalar,
    Skip,
    SpanReport,
    Step,
    Training,
)
from common.payloads import Encoding, Payload, Weights
from common.samples import Samples, from_arrays
from common.wire import records
from tests.methods.tiny import DIM, TinyLearner, TinyModel

AGENTS = ("anna", "bert", "cleo")
TRAINING = Training(lr=0.1, momentum=0.5, batch=4, epochs=2)
Moment = tuple[str, str, int]  # agent, moment, step


@dataclass(frozen=True)
class Data:
    """Four views of one agent's samples."""

    train: Samples
    holdout: Samples
    test: Samples
    unlabelled: Samples


def make_data(n_agents: int = 3, n_classes: int = 4, *, own_classes: bool = False) -> dict[str, Data]:
    """Clouds around one point per class, of unequal sizes; with `own_classes` agents differ in their classes."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((n_classes, DIM)) * 2
    names = (*AGENTS, *(f"extra{i}" for i in range(n_agents)))[:n_agents]
    data = {}
    for i, name in enumerate(names):
        n, k = 6 + 4 * i, n_classes - i % 3 if own_classes else n_classes
        labels = rng.integers(0, k, size=n + 8)
        x = (centres[labels] + 0.5 * rng.standard_normal((n + 8, DIM))).astype(np.float32)
        every = from_arrays(x, labels, k, digest=f"tiny-{name}")
        train, test = every.take(np.arange(n)), every.take(np.arange(n, n + 8))
        data[name] = Data(train.take(np.arange(1, n)), train.take(np.arange(1)), test, train.unlabelled())
    return data


@dataclass
class Site:
    """What `work` and `predict` are given; draws and spans are kept for the tests."""

    run: RunSpec[Any]
    agent: str
    data: Data
    rng: np.random.Generator
    make_learner: Callable[..., Learner]
    spans: dict[str, int] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def training(self) -> Training:
        return self.run.training

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class{i}" for i in range(self.data.train.n_classes))

    def learner(self, *, model: str | None = None, terms: tuple[str, ...] = (), **variant: Scalar) -> Learner:
        n_classes = int(variant.pop("n_classes", len(self.classes)))
        return self.make_learner(n_classes, **variant)

    def initial(self, learner: Learner, part: ModelPart | None = None) -> Weights:
        drawn = learner.initial(seeds.generator(self.run.seed, self.agent, "initial"))
        return drawn.only(n for n, spec in learner.parameters().items() if part in (None, spec.part))

    @contextmanager
    def span(self, name: str, n_samples: int) -> Iterator[None]:
        yield
        self.spans[name] = n_samples

    def count(self, name: str, n: float) -> None:
        self.counts[name] = self.counts.get(name, 0.0) + n


@dataclass(frozen=True)
class Faults:
    """What goes wrong in one step: replies that never arrive, agents whose device was wiped before it."""

    lost: tuple[str, ...] = ()
    wiped: tuple[str, ...] = ()
    quorum_missed: bool = False  # every reply arrives, the step is abandoned


class Loopback:
    """A run under way. `state` and `memories` are what a checkpoint and the devices hold."""

    def __init__(
        self,
        folder: Path,
        method: Any,  # a module, or a mutant of one
        run: RunSpec[Any],
        data: Mapping[str, Data],
        *,
        model: Model | None = None,
        make_learner: Callable[..., Learner] = TinyLearner,
        start: Mapping[str, Payload] | None = None,
    ) -> None:
        self.blobs = Blobs(folder, durable=False)
        self.method, self.run, self.data, self._make_learner = method, run, dict(data), make_learner
        self.memories: dict[str, tuple[int, Any]] = {}  # merged step that it belongs to, Memory
        self.reports: dict[str, dict[str, SpanReport]] = {name: {} for name in self.data}
        self.counts: dict[str, dict[str, float]] = {}
        self.streams: list[Any] = []  # where each generator stood when its user was done with it
        self.predictions: dict[Moment, dict[str, np.ndarray]] = {}
        self.replies: dict[str, Any] = {}  # of the last step, as merged
        self.tasks: dict[str, Any] = {}
        self.around_work: Callable[[], Any] = _nothing
        self.around_merge: Callable[[], Any] = _nothing
        self.around_predict: Callable[[], Any] = _nothing
        self.n_steps = 0
        rng = seeds.generator(run.seed, "init")
        self.state = self.stored(method.init(run, model or TinyModel(), start or {}, rng), method.State)

    # -------------------------------------------------------------- the codec

    def encoded(self, record: Any, encoding: Encoding = "exact") -> Any:
        return records.encode(record, lambda payload: self.blobs.put(payload, encoding))

    def through(self, record: Any, cls: Any, encoding: Encoding) -> Any:
        """The record as the other side decodes it; what it decodes to is encoded to the same bytes again."""
        sent = self.encoded(record, encoding)
        received = records.decode(
            cls,
            sent,
            lambda ref, _: self.blobs.open(ref),
            where="loopback",
            get_kept=lambda ref, _: self.blobs.open(ref, whole=True),
        )
        assert records.digest(self.encoded(received, encoding)) == records.digest(sent)
        return received

    def stored(self, record: Any, cls: Any) -> Any:
        return self.through(record, cls, "exact")

    def digest(self, record: Any) -> bytes:
        return records.digest(self.encoded(record))

    # -------------------------------------------------------------- a step

    def rounds(self, n: int, *, arrival: Sequence[str] = (), evaluate: bool = False) -> "Loopback":
        for _ in range(n):
            self.round(arrival=arrival, evaluate=evaluate)
        return self

    def round(self, *, arrival: Sequence[str] = (), faults: Faults | None = None, evaluate: bool = False) -> None:
        number = 1 + self.n_steps // len(self.phases(1))
        for phase in self.phases(number):
            self._step(number, phase, arrival or tuple(self.data), faults or Faults(), evaluate)
            self.n_steps += 1

    def phases(self, number: int) -> tuple[str, ...]:
        phases = getattr(self.method, "phases", None)
        return ("train",) if phases is None else phases(self.run, number)

    def _step(self, number: int, phase: str, arrival: Sequence[str], faults: Faults, evaluate: bool) -> None:
        infos = {name: self.info(name) for name in sorted(arrival)}
        for name in faults.wiped:
            self.memories.pop(name, None)
        plan = list(self.plan(tuple(infos.values()), number, phase))
        for i, (agent, _) in enumerate(plan):
            if agent.name in faults.wiped:  # the device says that it holds another memory: planned again, alone
                infos[agent.name] = self.info(agent.name)
                again = list(self.plan((infos[agent.name],), number, phase))
                plan[i : i + 1] = again
        self.tasks = {a.name: self.through(t, self.method.Task, self.run.encodings.down) for a, t in plan}
        pending: dict[str, Any] = {}
        self.replies = {}
        for name in (n for n in arrival if n in self.tasks):
            try:
                reply, pending[name] = self._work(name, self.tasks[name], number, evaluate)
            except Skip:
                continue
            if name not in faults.lost:
                self.replies[name] = reply
        merged = not faults.quorum_missed and bool(self.replies)
        if merged:
            self.merge(infos, number, phase)
        for name, memory in pending.items():
            if (merged and name in self.replies) or getattr(self.method, "KEEP_REFUSED", False):
                self.memories[name] = (self.n_steps, memory)
        if evaluate:
            self.evaluate(number, phase)

    def plan(self, agents: tuple[AgentInfo, ...], number: int, phase: str) -> Iterator[tuple[AgentInfo, Any]]:
        step = self._new_step(number, phase, "plan")
        yield from self.method.plan(self.run, self.state, agents, step)
        self.streams.append(step.rng.bit_generator.state)

    def _work(self, name: str, task: Any, number: int, evaluate: bool) -> tuple[Any, Any]:
        site = self.site(name, number, "work")
        memory = self.memory(name)
        if evaluate:
            self._predict((name, "start", self.n_steps), task, None, memory, site)
        with self.around_work():
            reply, kept = self.method.work(task, memory, site)
        kept = self.stored(kept, self.method.Memory)
        reply = self.through(reply, self.method.Reply, self.run.encodings.up)
        if evaluate:
            self._predict((name, "trained", self.n_steps), task, reply, kept, site)
        self.streams.append(site.rng.bit_generator.state)
        self.counts[name] = site.counts
        for span, n_samples in {"train": len(site.data.train), **site.spans}.items():
            seconds = 0.001 * n_samples
            self.reports[name][span] = SpanReport(span, self.n_steps, seconds, 10**6, n_samples, 10**3, 10**4)
        return reply, kept

    def merge(self, infos: Mapping[str, AgentInfo], number: int, phase: str) -> None:
        step = self._new_step(number, phase, "merge")
        replies = iter([(infos[name], self.replies[name]) for name in sorted(self.replies)])
        with self.around_merge():
            state = self.method.merge(self.run, self.state, replies, step)
        self.state = self.stored(state, self.method.State)
        self.streams.append(step.rng.bit_generator.state)

    def evaluate(self, number: int, phase: str) -> None:
        """Moments `merged` and `finetuned`, for every agent; nothing of it is kept."""
        agents = tuple(self.info(name) for name in sorted(self.data))
        step = self._new_step(number, phase, "evaluate")
        plan = getattr(self.method, "plan_evaluation", self.method.plan)
        for agent, task in plan(self.run, self.state, agents, step):
            task = self.through(task, self.method.Task, self.run.encodings.down)
            memory, site = self.memory(agent.name), self.site(agent.name, number, "finetune")
            self._predict((agent.name, "merged", self.n_steps), task, None, memory, site)
            try:
                reply, kept = self.method.work(task, copy.deepcopy(memory), site)
            except Skip:
                continue
            self._predict((agent.name, "finetuned", self.n_steps), task, reply, kept, site)

    def _predict(self, moment: Moment, task: Any, reply: Any, memory: Any, site: Site) -> None:
        with self.around_predict():
            scores = self.method.predict(task, reply, memory, site, site.data.test)
        for reading, array in scores.items():
            assert array.shape[0] == len(site.data.test), f"{reading}: one row of scores an input"
        self.predictions[moment] = scores

    # -------------------------------------------------------------- who is there

    def info(self, name: str) -> AgentInfo:
        data = self.data[name]
        counts = tuple(int(n) for n in data.train.counts())
        digest, task = bytes([len(counts)]).hex() * 32, f"tiny{len(counts)}"  # other classes are another data set
        facts = DataFacts(task, len(counts), digest, len(data.train), len(data.test), len(data.unlabelled), counts)
        step = self.memories[name][0] if name in self.memories else -1
        return AgentInfo(name, facts, memory_step=step, reports=tuple(self.reports[name].values()))

    def memory(self, name: str) -> Any:
        return self.memories[name][1] if name in self.memories else self.method.Memory()

    def site(self, name: str, number: int, purpose: str) -> Site:
        rng = seeds.generator(self.run.seed, number, self.n_steps, name, purpose)
        return Site(self.run, name, self.data[name], rng, self._make_learner)

    def _new_step(self, number: int, phase: str, purpose: str) -> Step:
        return Step(number, phase, self.n_steps, seeds.generator(self.run.seed, self.n_steps, purpose))


@contextmanager
def _nothing() -> Iterator[None]:
    yield
