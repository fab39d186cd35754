"""What holds for every method, as functions that raise AssertionError when it does not.

A method's test module, tests/methods/test_<name>.py, names its `CASES`; a field of a Task that only `predict` reads
is listed in the method's own `PREDICT_ONLY`.
"""

import dataclasses
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.method import Encodings, Learner, Model, ModelSpec, RunSpec, Training
from common.payloads import PAYLOAD_TYPES, Payload
from tests.methods.loopback import AGENTS, TRAINING, Data, Faults, Loopback, make_data
from tests.methods.tiny import TinyLearner, TinyModel

Folders = Callable[[], Path]  # a new empty folder at each call


@dataclass(frozen=True)
class Case:
    """One configuration of a method. `keeps_memory`: agents hold something of their own in it."""

    name: str
    config: Any
    head: typing.Literal["run", "agent"] = "run"
    keeps_memory: bool = False
    training: Training = TRAINING
    encodings: Encodings = field(default_factory=Encodings)
    model: Model = field(default_factory=TinyModel)
    learner: Callable[..., Learner] = TinyLearner
    start: Mapping[str, Payload] = field(default_factory=dict)
    data: Callable[[], Mapping[str, Data]] | None = None
    classes: tuple[str, ...] | None = ("class0", "class1", "class2", "class3")
    taxonomy: tuple[tuple[str, str], ...] | None = None
    rounds: int = 2
    options: Mapping[str, typing.Any] = field(default_factory=dict)  # of the run's model

    def __str__(self) -> str:
        return self.name


def loopback(method: Any, case: Case, folder: Path, encodings: Encodings | None = None) -> Loopback:
    run: RunSpec[Any] = RunSpec(
        name="contract",
        method=method.__name__.rpartition(".")[2],
        config=case.config,
        model=ModelSpec("tiny", case.options),
        training=case.training,
        rounds=case.rounds,
        seed=3,
        head=case.head,
        classes=None if case.head == "agent" else case.classes,
        taxonomy=case.taxonomy,
        encodings=encodings or case.encodings,
    )
    data = case.data() if case.data else make_data(own_classes=case.head == "agent")
    return Loopback(folder, method, run, data, model=case.model, make_learner=case.learner, start=case.start)


# ------------------------------------------------------------------ both halves read what the other wrote


def every_field_is_read(method: Any, cases: Iterable[Case], folders: Folders) -> None:
    """Recorded only while `work`, `merge` and `predict` run: the codec reads everything, and proves nothing."""
    by_work: set[str] = set()
    by_merge: set[str] = set()
    by_predict: set[str] = set()
    for case in cases:
        fleet = loopback(method, case, folders())
        fleet.around_work = lambda: recorded(records_of(method.Task), by_work)
        fleet.around_merge = lambda: recorded(records_of(method.Reply), by_merge)
        fleet.around_predict = lambda: recorded(records_of(method.Task), by_predict)
        fleet.rounds(case.rounds, evaluate=True)
    predict_only = set(getattr(method, "PREDICT_ONLY", ()))
    unread = fields_of(method.Task) - by_work - {f for f in fields_of(method.Task) if f.split(".")[1] in predict_only}
    assert not unread, f"work never reads {sorted(unread)}"
    named = {f.split(".")[1] for f in by_predict}
    assert predict_only <= named, f"predict never reads {sorted(predict_only - named)}"
    assert not fields_of(method.Reply) - by_merge, f"merge never reads {sorted(fields_of(method.Reply) - by_merge)}"


def memory_changes_where_declared(method: Any, case: Case, folder: Path) -> None:
    fleet = loopback(method, case, folder).rounds(1)
    empty = fleet.digest(method.Memory())
    changed = {name for name, (_, memory) in fleet.memories.items() if fleet.digest(memory) != empty}
    assert bool(changed) == case.keeps_memory, f"memory changed for {sorted(changed)}, declared {case.keeps_memory}"
    if case.keeps_memory:
        before = {name: fleet.digest(memory) for name, (_, memory) in fleet.memories.items()}
        fleet.rounds(1)
        after = {name: fleet.digest(memory) for name, (_, memory) in fleet.memories.items()}
        assert any(after[name] != digest for name, digest in before.items()), "memory never changes again"


# ------------------------------------------------------------------ nothing depends on what it must not


def arrival_does_not_matter(method: Any, case: Case, folders: Folders) -> None:
    fleets = [loopback(method, case, folders()).rounds(case.rounds, arrival=order) for order in _orders()]
    assert len({fleet.digest(fleet.state) for fleet in fleets}) == 1, "State depends on the order of arrival"
    assert len({_memories(fleet) for fleet in fleets}) == 1, "Memory depends on the order of arrival"


def evaluation_changes_nothing(method: Any, case: Case, folders: Folders) -> None:
    without = loopback(method, case, folders()).rounds(case.rounds)
    with_all = loopback(method, case, folders()).rounds(case.rounds, evaluate=True)
    assert with_all.digest(with_all.state) == without.digest(without.state), "State depends on evaluation"
    assert _memories(with_all) == _memories(without), "Memory depends on evaluation"
    steps = [s for s in with_all.streams if s in without.streams]
    assert steps == without.streams, "random streams depend on evaluation"
    for moment, readings in with_all.predictions.items():
        for reading, scores in readings.items():
            assert np.isfinite(scores).all(), f"{moment} {reading}: not finite"


def planning_is_pure(method: Any, case: Case, folder: Path) -> None:
    fleet = loopback(method, case, folder)
    for _ in range(case.rounds):
        infos = tuple(fleet.info(name) for name in sorted(fleet.data))
        phase = fleet.phases(1)[0]
        before = fleet.digest(fleet.state)
        plans = [[(agent.name, fleet.digest(task)) for agent, task in fleet.plan(infos, 1, phase)] for _ in range(2)]
        assert plans[0] == plans[1], "the same plan made twice differs"
        assert fleet.digest(fleet.state) == before, "plan changed the State"
        fleet.rounds(1)


# ------------------------------------------------------------------ what goes wrong on the way


def faults_are_survived(method: Any, case: Case, folder: Path) -> None:
    """Lost replies, a whole step lost, a wiped device; what each leaves behind."""
    fleet = loopback(method, case, folder)
    first, second = sorted(fleet.data)[:2]
    fleet.round(faults=Faults(lost=(first,)))
    keeps = getattr(method, "KEEP_REFUSED", False)
    assert (fleet.info(first).memory_step == -1) != keeps, "the memory of a lost reply"
    before = fleet.digest(fleet.state)
    fleet.round(faults=Faults(quorum_missed=True))
    assert fleet.digest(fleet.state) == before, "a step that missed its quorum changed the State"
    fleet.round(faults=Faults(lost=tuple(fleet.data)))
    assert fleet.digest(fleet.state) == before
    fleet.round()
    fleet.round(faults=Faults(wiped=(second,)))
    assert fleet.info(second).memory_step == fleet.n_steps - 1 or second not in fleet.replies
    fleet.round(arrival=(second,))
    fleet.rounds(1)


def a_lost_reply_leaves_no_trace(method: Any, case: Case, folder: Path) -> None:
    """The agent goes back to the Memory of its last merged step; the others go on."""
    fleet = loopback(method, case, folder).rounds(1)
    name = sorted(fleet.data)[1]
    held = fleet.digest(fleet.memory(name))
    fleet.round(faults=Faults(lost=(name,)))
    if not getattr(method, "KEEP_REFUSED", False):
        assert fleet.digest(fleet.memory(name)) == held, "the Memory of a lost reply was kept"
    others = [other for other in fleet.replies if fleet.info(other).memory_step != fleet.n_steps - 1]
    assert not others, f"the Memory of {others} was lost with another agent's reply"


def float16_both_ways(method: Any, case: Case, folders: Folders) -> None:
    """Half the bytes, nearly the same State: a half has 11 bits, so 1e-3 of a value, and two rounds of training."""
    full = loopback(method, case, folders()).rounds(case.rounds)
    half = loopback(method, case, folders(), Encodings("float16", "float16")).rounds(case.rounds, evaluate=True)
    for name, array in _floats(full.state):
        other = dict(_floats(half.state)).get(name)
        assert other is not None, f"{name} is missing with float16"
        assert np.allclose(array, other, rtol=0.05, atol=0.05), f"{name} is far off with float16"


def nothing_heavy_is_imported(modules: Iterable[str]) -> None:
    """In a fresh process, as on a device: the agent and the methods, without the server and without torch."""
    code = (
        "import sys, importlib\n"
        f"for name in {('edge_client.agent', *modules)!r}: importlib.import_module(name)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'server', 'torch', 'torchvision', 'benchmarks'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"importing the agent and its methods loads {done.stdout.strip()}"


# ------------------------------------------------------------------ recording


def records_of(hint: Any) -> tuple[type, ...]:
    """All dataclasses of a method that a type hint reaches; payloads are not among them."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint not in PAYLOAD_TYPES:
        inner = typing.get_type_hints(hint).values()
        return (hint, *(cls for h in inner for cls in records_of(h)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple, list, dict):
        return tuple(cls for h in typing.get_args(hint) for cls in records_of(h))
    return ()


def fields_of(hint: Any) -> set[str]:
    return {f"{cls.__name__}.{f.name}" for cls in records_of(hint) for f in dataclasses.fields(cls)}


@contextmanager
def recorded(classes: Iterable[type], into: set[str]) -> Iterator[None]:
    """Notes each field of these classes that is read, by anyone, until the block ends."""
    unique = set(classes)

    def reader(cls: type) -> Callable[[Any, str], Any]:
        names = {f.name for f in dataclasses.fields(cls)}

        def read(self: Any, name: str) -> Any:
            if name in names:
                into.add(f"{cls.__name__}.{name}")
            return object.__getattribute__(self, name)

        return read

    for cls in unique:
        cls.__getattribute__ = reader(cls)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for cls in unique:
            del cls.__getattribute__


def _orders() -> tuple[tuple[str, ...], ...]:
    a, b, c = AGENTS
    return (a, b, c), (c, b, a), (b, c, a)


def _memories(fleet: Loopback) -> str:
    digests = {n: (step, fleet.digest(memory).hex()) for n, (step, memory) in sorted(fleet.memories.items())}
    return repr(digests)


def _floats(state: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for f in dataclasses.fields(state):
        value = getattr(state, f.name)
        if isinstance(value, Mapping):
            for name, array in value.items():
                if isinstance(array, np.ndarray) and array.dtype == np.float32:
                    yield f"{path}{f.name}.{name}", array
