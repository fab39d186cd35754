"""An experiment: the rows, seeds and stages of a run file, each run once, kept as soon as it is finished.

What results.json already has is not run again, so an interrupted experiment goes on where it stopped: with the round
that was broken off, where the server's state is still there.
"""

import hashlib
import importlib.resources
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import grpc

from benchmarks import host, results, table, taxonomies
from benchmarks.fleet import Federation
from common import data_files, pb, runfile
from common.errors import EXIT_REFUSED, ConfigError, RemoteFault, UnknownName
from common.run_sections import RunFile, Variant

CHECK_S = 0.5  # how soon a dead process is noticed while a run is watched
ENDED = ("done", "stopped", "failed")
Told = Callable[["Planned", pb.RunEvent], None]


@dataclass(frozen=True)
class Planned:
    """One run to be made: a row, a seed, and a stage when there are stages.

    `name` is the run's on the server, and what `file` names where it starts from an earlier stage; `config` has the
    stage's own name there, so that it is the same for every server.
    """

    label: str
    seed: int
    stage: str
    name: str
    file: RunFile
    config: Mapping[str, Any]  # Any: TOML values

    @property
    def title(self) -> str:
        return " ".join(part for part in (self.label, self.stage, f"seed {self.seed}") if part)


Chain = tuple[Planned, ...]  # the stages of one row and seed, in order


def find(name: str) -> tuple[str, str]:
    """An experiment's name and text: of a file, or of one that is shipped with this package."""
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        try:
            return path.stem, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read experiment {path}: {error}") from error
    shipped = importlib.resources.files("benchmarks") / "experiments"
    known = {entry.name.removesuffix(".toml"): entry for entry in shipped.iterdir() if entry.name.endswith(".toml")}
    if name not in known:
        raise UnknownName("experiment", name, known)
    return name, known[name].read_text(encoding="utf-8")


def planned(file: RunFile, seeds: Sequence[int] = (), *, mark: str = "") -> list[Chain]:
    """Every row with every seed; `seeds` go before the row's own, and those before the file's.

    `mark` ends the names of runs. Devices that outlive a server keep their memory by the name of the run, and must
    not take a run of the next server for one that they know.
    """
    own = {row.label: row.seeds for row in file.row}
    chains: dict[tuple[str, int], list[Planned]] = {}
    for variant in runfile.expand(file):
        for seed in seeds or own.get(variant.label) or (variant.file.run.seed,):
            chain = chains.setdefault((variant.label, seed), [])
            chain.append(_planned(variant, seed, chain, mark))
    _check_names(plan for chain in chains.values() for plan in chain)
    return [tuple(chain) for chain in chains.values()]


def _check_names(plans: Iterable[Planned]) -> None:
    seen: dict[str, Planned] = {}
    for plan in plans:
        other = seen.setdefault(plan.name, plan)
        if other is not plan:
            raise ConfigError(
                f"rows {other.label!r} and {plan.label!r} are both {plan.name!r} on the server: let their labels differ"
                " in letters or digits"
            )


def _planned(variant: Variant, seed: int, earlier: Iterable[Planned], mark: str) -> Planned:
    settings = runfile.with_overrides(variant.file, {"run.seed": seed})
    by_stage = {p.stage: p.name for p in earlier}
    start = settings.run.init_from
    file = runfile.with_overrides(settings, {"run.init_from": by_stage[start]}) if start in by_stage else settings
    words = [variant.label, f"s{seed}", variant.stage, mark]
    name = "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words if word)
    return Planned(variant.label, seed, variant.stage, name, file, results.as_json(settings.table))


def mark(file: RunFile, n_agents: int, n_processes: int) -> str:
    """Of a fleet's state: whoever has the same mark has the same runs, agents, data and code, and may go on with it."""
    code = [host.commit(), host.changes(), host.versions()]
    what = [results.as_json(file.table), n_agents, n_processes, os.environ.get("EDGEFED_DATA"), code]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def n_agents(file: RunFile) -> int:
    if file.data.n_agents is None:
        raise ConfigError("the run file has no [data] n_agents: say how many agents the data are parted among")
    if file.agents.min > file.data.n_agents:
        raise ConfigError(
            f"the run would wait for ever: [agents] min = {file.agents.min} is more than [data] n_agents ="
            f" {file.data.n_agents}"
        )
    return file.data.n_agents


def start(name: str, path: Path) -> results.Results:
    """The results that are there already, or empty ones."""
    if path.exists():
        return results.load(path)
    return results.Results(name, host.commit(), host.versions(), host.facts())


class Finished(Protocol):
    """What is asked of a run that was made before, here or in another checkout."""

    @property
    def label(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def stage(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...  # Any: TOML values


def unfinished(chains: Iterable[Chain], runs: Iterable[Finished]) -> list[Chain]:
    """Chains with a run that is not among the finished ones, or was made with other settings.

    A later stage starts from an earlier one that only a live server has, so a chain is run again as a whole.
    """
    have: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.status == "done":
            have.setdefault((run.label, run.seed, run.stage), []).append(results.as_json(run.config))

    def is_done(p: Planned) -> bool:
        return p.config in have.get((p.label, p.seed, p.stage), [])

    return [chain for chain in chains if not all(is_done(p) for p in chain)]


def with_other_settings(chains: Iterable[Chain], runs: Iterable[Finished]) -> int:
    """How many of the finished runs the chains replace although their settings are others."""
    config = {(p.label, p.seed, p.stage): p.config for chain in chains for p in chain}
    done = [(config.get((r.label, r.seed, r.stage)), results.as_json(r.config)) for r in runs if r.status == "done"]
    return sum(wanted is not None and wanted != have for wanted, have in done)


def kept(
    found: results.Results, run: results.RunRow, order: Sequence[str], notes: Mapping[str, str]
) -> results.Results:
    """The results with this run, in place of an earlier one of the same row, seed and stage."""
    key = (run.label, run.seed, run.stage)
    others = [r for r in found.runs if (r.label, r.seed, r.stage) != key]
    place = {label: i for i, label in enumerate(order)}
    runs = sorted([*others, run], key=lambda r: (place.get(r.label, len(place)), r.label, r.seed))
    return replace(found, runs=tuple(runs), table=tuple(table.rows(runs, notes)))


def execute(plan: Planned, federation: Federation, told: Told) -> results.RunRow:
    """Submit one run, unless the server has it from before, watch it to its end, and fetch what is known of it."""
    there = {run.run for run in federation.operations.ListRuns(pb.ListRunsRequest()).runs}
    goes_on = plan.name in there
    if not goes_on:
        _submit(plan, federation)
    for event in _watched(federation, plan.name):
        told(plan, event)
        if event.summary.status in ENDED:
            break
    detail = federation.operations.ShowRun(pb.ShowRunRequest(run=plan.name))
    run = results.from_detail(detail, label=plan.label, seed=plan.seed, stage=plan.stage, config=plan.config)
    if run.status != "done":
        federation.forget()  # or its failure would be told again instead of being tried again
    # nobody waited while it was broken off: only what its rounds took counts
    return replace(run, seconds=sum(r.seconds for r in run.rounds)) if goes_on else run


def _submit(plan: Planned, federation: Federation) -> None:
    request = pb.SubmitRunRequest(
        run_toml=runfile.to_toml(taxonomies.inlined(plan.file)), name=plan.name, files=_files(plan.file)
    )
    try:
        federation.operations.SubmitRun(request)
    except grpc.RpcError as error:
        raise RemoteFault(f"the server refused run {plan.name} ({plan.title}): {_details(error)}") from error


def _watched(federation: Federation, run: str) -> Iterable[pb.RunEvent]:
    """The events of a run; a process of the federation that ends meanwhile is an error at once, not a timeout."""
    stream = federation.operations.WatchRun(pb.WatchRunRequest(run=run))
    events: queue.SimpleQueue[pb.RunEvent | grpc.RpcError | None] = queue.SimpleQueue()

    def pump() -> None:
        try:
            for event in stream:
                events.put(event)
            events.put(None)
        except grpc.RpcError as error:
            events.put(error)

    threading.Thread(target=pump, name=f"watch-{run}", daemon=True).start()
    try:
        while True:
            try:
                event = events.get(timeout=CHECK_S)
            except queue.Empty:
                federation.check()
                continue
            if event is None:
                return
            if isinstance(event, grpc.RpcError):
                federation.check()
                raise RemoteFault(f"the server ended the watch of run {run}: {_details(event)}") from event
            yield event
    finally:
        stream.cancel()


def _files(file: RunFile) -> dict[str, bytes]:
    """The files that the server needs of those that a run file names, by the name that it uses."""
    named = [name for name in (file.run.init, file.agents.selection) if isinstance(name, str) and "." in name]
    try:
        return {name: data_files.found(name).read_bytes() for name in named}
    except OSError as error:
        raise ConfigError(f"the run file names a file that cannot be read: {error}", exit_code=EXIT_REFUSED) from error


def _details(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
