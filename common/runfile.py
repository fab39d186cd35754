"""The run file: one TOML file describes a run, or a table of runs (`[[row]]`), each perhaps in stages (`[[stage]]`).

Any number under [method], [model], [objective], [optimiser] or [agents] may be a schedule over the rounds. So a run
keeps its table as written, and both sides read the sections from it again for each round.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from common import methods, pb
from common.errors import ConfigError, RemoteFault
from common.method import Encodings, ModelSpec, RunSpec, Training
from common.payloads import Blob
from common.run_sections import Row, RunFile, Stage, Variant
from common.schedule import AtRound, is_schedule, resolved
from common.toml_reader import Problems, read

MEDIA_TYPE = "application/x-edgefed-run"
SCHEDULED = ("method", "model", "objective", "optimiser", "agents")  # sections whose numbers may be schedules


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
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON leaves that one as it is
        case Mapping():
            return "{" + ", ".join(f"{_toml_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise ConfigError(f"a run file cannot hold {value!r}")


def _toml_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else _toml(key)


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
