"""The run file: one TOML file describes a run, or a table of runs (`[[row]]`), each perhaps in stages (`[[stage]]`).

Any number under [method], [model], [objective], [optimiser] or [agents] may be a schedule over the rounds. So a run
keeps its table as written, and both sides read the sections from it again for each round.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from common import methods, pb
from common.errors import ConfigError, RemoteFault
from common.method import Encodings, ModelSpec, RunSpec, Scalar, Training
from common.payloads import Blob
from common.schedule import AtRound, is_schedule, resolved
from common.toml_reader import INTERNAL, REST, Problems, read

MEDIA_TYPE = "application/x-edgefed-run"
SCHEDULED = ("method", "model", "objective", "optimiser", "agents")  # sections whose numbers may be schedules
Moment = Literal["start", "trained", "merged", "finetuned"]


@dataclass(frozen=True)
class RunSection:
    """What is run. `init`: "seed", or an .npz with weights; `init_from`: the name of an earlier run or stage."""

    method: str
    rounds: int
    seed: int = 1
    init: str = "seed"
    init_from: str = ""
    init_map: Mapping[str, str] = field(default_factory=dict)
    memory_from: Literal["none", "init_from"] = "none"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        if self.memory_from != "none":
            raise ValueError(
                'memory_from = "init_from" is not available yet: agents begin a run with empty memories, whatever it'
                ' starts from; leave it out, or say "none"'
            )
        if self.method not in methods.names():
            methods.load(self.method)


@dataclass(frozen=True)
class ModelSection:
    """The model by name; every further key is an option of that model."""

    name: str = "linear"
    head: Literal["run", "agent"] = "run"
    options: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class ObjectiveSection:
    """The objective by name; every further key is an option of that objective."""

    name: str = "cross_entropy"
    options: Mapping[str, Scalar] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class OptimiserSection:
    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    epochs: int = 1
    batch: int = 32
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.lr < 0 or self.batch < 1 or self.epochs < 0:
            raise ValueError(
                f"lr and epochs must not be negative and batch at least 1, "
                f"got lr {self.lr}, epochs {self.epochs}, batch {self.batch}"
            )


@dataclass(frozen=True)
class DataSection:
    """Data set and partition for agents started with `--data named`; other agents ignore all but the last lines."""

    name: str = "digits"
    partition: str = "iid"  # iid, dirichlet, pathological, or the path of an .npz
    alpha: float = 0.1
    classes_per_agent: int = 2
    n_agents: int | None = None
    parted_among: int | None = None  # the data are divided among so many, of which the first n_agents take part
    min_samples: int = 10
    test_fraction: float = 0.25
    split: Literal["supervised", "transductive", "inductive"] = "supervised"  # the others: common/label_split.py
    labelled: float = 0.25  # share of an agent's samples that train with their labels, unless split = "supervised"
    stratified: bool = True  # that share is of each class
    seed: int = 42
    shots: int | None = None  # images per class over all agents
    n_classes: int | None = None  # the first so many classes of each data set, the rest is left out
    limit: int | None = None  # first so many training samples of the data set, before it is partitioned
    tasks: tuple[str, ...] = ()  # several data sets, agent i takes tasks[i % len(tasks)]
    holdout: float = 0.0
    classes: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()  # classes of the data set whose samples nobody has
    taxonomy: str | tuple[tuple[str, ...], ...] | None = None  # (parent, child) edges, a file of them, or "coarse"

    def __post_init__(self) -> None:
        if self.parted_among is not None and self.parted_among < (self.n_agents or 1):
            raise ValueError(f"parted_among must be at least n_agents = {self.n_agents}, got {self.parted_among}")
        if not 0 <= self.holdout < 1 or not 0 <= self.test_fraction < 1:
            raise ValueError(f"holdout and test_fraction must be in [0, 1), got {self.holdout}, {self.test_fraction}")
        if not 0 < self.labelled < 1:
            raise ValueError(f"labelled must be in (0, 1), got {self.labelled}")
        if self.split != "supervised" and self.shots is not None:
            raise ValueError(f"shots go with split = 'supervised', got shots = {self.shots} and split = {self.split!r}")
        if self.split == "inductive" and self.labelled + self.test_fraction >= 1:
            raise ValueError(
                f"labelled and test_fraction must leave samples without labels, "
                f"got {self.labelled} and {self.test_fraction}"
            )
        for edge in () if isinstance(self.taxonomy, str) else self.taxonomy or ():
            if len(edge) != 2:
                raise ValueError(f"taxonomy is a list of [parent, child] pairs, got {list(edge)}")


@dataclass(frozen=True)
class AgentsSection:
    """Who takes part: `fraction` of the ready agents, at least `min`; `quorum` of their tasks must be answered."""

    min: int = 1
    fraction: float = 1.0
    quorum: float = 1.0
    deadline_s: float = 600.0
    over_selection: float = 0.0  # share of agents asked beyond `fraction`; the step closes when enough have replied
    tags: tuple[str, ...] = ()
    selection: str | tuple[tuple[str | int, ...], ...] = "seeded"  # or a list of agents (names or indices) per round,
    # or the .json that has those lists

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1 or not 0 <= self.quorum <= 1 or self.min < 1 or self.deadline_s <= 0:
            raise ValueError(
                f"expected 0 < fraction <= 1, 0 <= quorum <= 1, min >= 1, deadline_s > 0, got "
                f"fraction {self.fraction}, quorum {self.quorum}, min {self.min}, deadline_s {self.deadline_s}"
            )
        if isinstance(self.selection, str) and self.selection != "seeded" and not self.selection.endswith(".json"):
            raise ValueError(
                f"selection must be 'seeded', a list of agents per round or FILE.json, got {self.selection!r}"
            )


@dataclass(frozen=True)
class EvaluationSection:
    """Which moments are measured, on whom, how often (0: never; the last round always, if anything is)."""

    every: int = 1
    every_task: int | None = None  # of the moments within training tasks, "start" and "trained"; None: as `every`
    agents: str | int = "all"  # all, sampled, or a number of agents
    when: tuple[Moment, ...] = ("merged",)
    finetune_epochs: int = 0
    label_space: Literal["all", "own"] = "all"
    metrics: tuple[str, ...] = ("accuracy", "loss")

    def __post_init__(self) -> None:
        if isinstance(self.agents, str) and self.agents not in ("all", "sampled"):
            raise ValueError(f"agents must be 'all', 'sampled' or a number, got {self.agents!r}")


@dataclass(frozen=True)
class WireSection:
    """Lossy encodings of uploads and downloads, and whether NaN and Inf are refused on arrival."""

    up: Literal["float32", "float16", "bfloat16"] = "float32"
    down: Literal["float32", "float16", "bfloat16"] = "float32"
    non_finite: Literal["refuse", "allow"] = "refuse"


@dataclass(frozen=True)
class Row:
    label: str
    set: Mapping[str, Any] = field(default_factory=dict)  # Any: a value of a TOML file
    seeds: tuple[int, ...] = ()  # instead of the experiment's
    stages: tuple[str, ...] = ()  # of the file's, those that this row has; none named: all


@dataclass(frozen=True)
class Stage:
    name: str
    set: Mapping[str, Any] = field(default_factory=dict)  # Any: a value of a TOML file


@dataclass(frozen=True)
class RunFile:
    """A run file with every section read; `table` is what it was read from."""

    run: RunSection
    method: Mapping[str, Any] = field(default_factory=dict)  # Any: the method's own Config reads it
    model: ModelSection = field(default_factory=ModelSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    data: DataSection = field(default_factory=DataSection)
    agents: AgentsSection = field(default_factory=AgentsSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    wire: WireSection = field(default_factory=WireSection)
    isolate: bool = False
    row: tuple[Row, ...] = ()
    stage: tuple[Stage, ...] = ()
    table: Mapping[str, Any] = field(default_factory=dict, metadata=INTERNAL, compare=False)  # Any: TOML values


@dataclass(frozen=True)
class Variant:
    """One run of an experiment: a row, and a stage of it when there are stages."""

    label: str
    stage: str
    file: RunFile


def load(path: Path) -> RunFile:
    """Read a run file.

    Raises:
        ConfigError: it cannot be read, or has mistakes; the text lists all of them, one a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read run file {path}: {error}") from error
    return parse(text, str(path))


def parse(text: str, where: str) -> RunFile:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    return from_table(table, where, text)


def from_table(table: Mapping[str, Any], where: str, text: str = "") -> RunFile:
    """The run file that a table describes, checked for its first and its last round."""
    problems = Problems(where, text)
    rounds = table.get("run", {}).get("rounds") if isinstance(table.get("run"), Mapping) else None
    first = _at(table, 1, rounds, problems)
    problems.raise_if_any()
    last = _at(table, rounds, rounds, problems) if isinstance(rounds, int) else None
    problems.raise_if_any()
    if first is None or last is None:
        raise ConfigError(f"{where}: [run] rounds is missing or no whole number")
    for file in (first, last):
        if not file.row and not file.stage:  # a row may name another method, so its [method] is read with the row
            _config(file, problems)
    problems.raise_if_any()
    return first


def with_overrides(file: RunFile, changes: Mapping[str, Any], where: str = "--set") -> RunFile:
    """The run file with dotted keys set: {"run.method": "local"}."""
    table: dict[str, Any] = _copied(file.table)
    for path, value in changes.items():
        *sections, key = path.split(".")
        place = table
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{where}: {path} goes through {section!r}, which is no section of the run file")
        place[key] = value
    if "run.method" in changes and changes["run.method"] != file.run.method:
        given = {path.split(".")[1] for path in changes if path.startswith("method.")}
        table["method"] = {k: v for k, v in table.get("method", {}).items() if k in given}
    return from_table(table, where)


def expand(file: RunFile) -> Iterator[Variant]:
    """The runs of a file, rows outside, stages inside; a stage starts from the one before unless it says otherwise.

    Where it names one that its row leaves out, it starts from the seed: the row is a control.
    """
    for row in file.row or (Row(label=file.run.method),):
        base = _without_tables(file, row.set, f"row {row.label!r}")
        stages, left_out = _stages_of(row, file.stage)
        previous = ""
        for stage in stages:
            changes = dict(stage.set)
            if changes.get("run.init_from") in left_out:
                del changes["run.init_from"]
            elif previous and "run.init_from" not in changes:
                changes["run.init_from"] = previous
            done = with_overrides(base, changes, f"stage {stage.name!r}") if changes else base
            previous = stage.name
            yield Variant(row.label, stage.name, done)


def _stages_of(row: Row, stages: tuple[Stage, ...]) -> tuple[tuple[Stage, ...], frozenset[str]]:
    """The stages of a row, and the names of those that it leaves out."""
    known = [stage.name for stage in stages]
    if unknown := [name for name in row.stages if name not in known]:
        raise ConfigError(f"row {row.label!r} names stage {unknown[0]!r}; the file has {', '.join(known) or 'none'}")
    kept = tuple(stage for stage in stages if not row.stages or stage.name in row.stages)
    return kept or (Stage(name=""),), frozenset(known) - {stage.name for stage in kept}


def to_toml(file: RunFile) -> str:
    """The table as TOML again; reads back equal."""
    lines: list[str] = [f"{key} = {_toml(value)}" for key, value in file.table.items() if not _is_section(value)]
    for section, value in file.table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{section}]", *(f"{key} = {_toml(inner)}" for key, inner in value.items())]
        elif _is_section(value):
            for item in value:
                lines += ["", f"[[{section}]]", *(f"{key} = {_toml(inner)}" for key, inner in item.items())]
    return "\n".join(lines).strip() + "\n"


# ------------------------------------------------------------------ a run, as both sides hold it


@dataclass(frozen=True)
class Run:
    """A run file with what the server has settled: its name, class list and taxonomy."""

    name: str
    file: RunFile
    classes: tuple[str, ...] | None
    taxonomy: tuple[tuple[str, str], ...] | None

    def file_at(self, round_number: int) -> RunFile:
        """The sections with that round's numbers."""
        return _file_at(self, round_number)

    def at(self, round_number: int) -> RunSpec[Any]:
        """The run as a method sees it in that round."""
        file = self.file_at(round_number)
        problems = Problems(f"run {self.name}")
        config = _config(file, problems)
        problems.raise_if_any()
        o = file.optimiser
        return RunSpec(
            name=self.name,
            method=file.run.method,
            config=config,
            model=ModelSpec(file.model.name, file.model.options),
            training=Training(
                objective=file.objective.name,
                objective_options=file.objective.options,
                optimiser=o.name,
                lr=o.lr,
                momentum=o.momentum,
                nesterov=o.nesterov,
                weight_decay=o.weight_decay,
                batch=o.batch,
                epochs=o.epochs,
                steps=o.steps,
            ),
            rounds=file.run.rounds,
            seed=file.run.seed,
            head=file.model.head,
            classes=self.classes,
            taxonomy=self.taxonomy,
            encodings=Encodings(file.wire.up, file.wire.down),
        )

    def __hash__(self) -> int:  # by identity: the table is a dict, and file_at caches
        return id(self)


def to_blob(
    file: RunFile,
    name: str,
    classes: tuple[str, ...] | None = None,
    taxonomy: tuple[tuple[str, str], ...] | None = None,
) -> Blob:
    """The run as it travels: the run file's table as typed values, not text."""
    whole: dict[str, Any] = {"name": name, "file": file.table}
    if classes is not None:
        whole["classes"] = classes
    if taxonomy is not None:
        whole["taxonomy"] = taxonomy
    record = pb.Record(fields=pb.Fields(type="Run", fields=[pb.Field(name="run", value=_to_value(whole))]))
    return Blob(MEDIA_TYPE, record.SerializeToString(deterministic=True))


def from_blob(blob: Blob) -> Run:
    """The run that a server sent.

    Raises:
        RemoteFault: the blob is no run, or this version cannot read it.
    """
    if blob.media_type != MEDIA_TYPE:
        raise RemoteFault(f"expected a blob of type {MEDIA_TYPE}, got {blob.media_type!r}")
    try:
        record = pb.Record.FromString(bytes(blob.data))
        whole = _from_value(record.fields.fields[0].value)
        file = from_table(whole["file"], f"run {whole['name']}")
    except (ValueError, LookupError, TypeError, pb.DecodeError, ConfigError) as error:
        raise RemoteFault(
            f"the run that the server sent cannot be read here; are both of one version? {error}"
        ) from error
    taxonomy = whole.get("taxonomy")
    edges = None if taxonomy is None else tuple((str(a), str(b)) for a, b in taxonomy)
    return Run(whole["name"], file, whole.get("classes"), edges)


@lru_cache(maxsize=64)
def _file_at(run: Run, round_number: int) -> RunFile:
    problems = Problems(f"run {run.name}")
    file = _at(run.file.table, round_number, run.file.run.rounds, problems)
    problems.raise_if_any()
    if file is None:
        raise ConfigError(f"run {run.name} cannot be read for round {round_number}")
    return file


def _at(table: Mapping[str, Any], round_number: Any, rounds: Any, problems: Problems) -> RunFile | None:
    if isinstance(rounds, int):
        try:
            at = AtRound(round_number, rounds)
            numbers = {k: resolved(v, at) if k in SCHEDULED else v for k, v in table.items()}
        except (TypeError, ValueError) as error:
            problems.add("", f"a schedule cannot be read: {error}")
            return None
    else:
        numbers = dict(table)
    allowed = ", ".join(SCHEDULED)
    for section, values in numbers.items():
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if section not in SCHEDULED and is_schedule(value):
                problems.add(f"{section}.{key}", f"{section}.{key} cannot be a schedule; sections that can: {allowed}")
    file = read(RunFile, numbers, problems)
    return None if file is None else replace(file, table=table)


def _config(file: RunFile, problems: Problems) -> Any:
    return read(methods.load(file.run.method).Config, file.method, problems, "method")


def _without_tables(file: RunFile, changes: Mapping[str, Any], where: str) -> RunFile:
    table = {key: value for key, value in file.table.items() if key not in ("row", "stage")}
    bare = replace(file, row=(), stage=(), table=table)
    return with_overrides(bare, changes, where)


def _is_section(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)
    )


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            return f'"{escaped}"'
        case Mapping():
            return "{" + ", ".join(f"{_toml_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise ConfigError(f"a run file cannot hold {value!r}")


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else _toml(key)


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _to_value(value: object) -> pb.Value:
    match value:
        case bool():
            return pb.Value(boolean=value)
        case int():
            return pb.Value(integer=value)
        case float():
            return pb.Value(real=value)
        case str():
            return pb.Value(text=value)
        case Mapping():
            return pb.Value(map=pb.Map(entries=[pb.Entry(key=k, value=_to_value(value[k])) for k in sorted(value)]))
        case list() | tuple():
            return pb.Value(list=pb.List(values=[_to_value(item) for item in value]))
    raise ConfigError(f"a run file cannot hold {value!r}; it has texts, numbers, truth values, lists and tables")


def _from_value(value: pb.Value) -> Any:
    kind = value.WhichOneof("kind")
    match kind:
        case "map":
            return {entry.key: _from_value(entry.value) for entry in value.map.entries}
        case "list":
            return tuple(_from_value(item) for item in value.list.values)
        case "boolean" | "integer" | "real" | "text":
            return getattr(value, kind)
    raise ValueError(f"a run holds no value of kind {kind}")
