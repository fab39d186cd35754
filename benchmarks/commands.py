"""What fed-bench's commands do, in the order in which a person sees it happen."""

import contextlib
import functools
import json
import secrets
import socket
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import (
    condensed,
    estimate,
    experiment,
    expert_costs,
    fleet,
    partition_picture,
    plot,
    results,
    table,
    tree_picture,
)
from benchmarks.experiment import Chain, Planned
from benchmarks.fleet import Federation
from benchmarks.results import Results
from common import methods, pb, runfile
from common.errors import EXIT_IDENTITY, EXIT_RUN, ConfigError, FederationError, UnknownName
from common.run_sections import Row, RunFile
from edge_client import device

OWN_PROCESS = 8  # up to so many agents get a process each; more share one process per core
EXTERNAL_JOIN_S = 24 * 3600.0


@dataclass(frozen=True)
class Output:
    folder: Path | None
    as_json: bool

    @property
    def console(self) -> Console:
        return Console(stderr=self.as_json)


@dataclass(frozen=True)
class Which:
    """The runs of an experiment that are wanted: rows by label, seeds, none that the folder `kept` has condensed."""

    rows: tuple[str, ...] = ()
    seeds: Sequence[int] = ()
    kept: Path | None = None

    def chains(self, chains: list[Chain]) -> list[Chain]:
        labels = dict.fromkeys(chain[0].label for chain in chains)
        for row in self.rows:
            if row not in labels:
                raise UnknownName("row", row, labels)
        return [chain for chain in chains if not self.rows or chain[0].label in self.rows]

    def earlier(self, name: str) -> Sequence[condensed.Run]:
        path = self.kept / f"{name}.json" if self.kept else None
        return condensed.load(path).runs if path and path.exists() else ()


@dataclass(frozen=True)
class Devices:
    """Who carries the agents: processes of this machine, or devices that their owners start."""

    external: bool = False
    listen: str = ""
    processes: int | None = None
    server_flags: tuple[str, ...] = ("--insecure",)

    def n_processes(self, n_agents: int) -> int:
        if self.processes is not None:
            return min(self.processes, n_agents)
        return n_agents if n_agents <= OWN_PROCESS else device.facts().cores


def quickstart(output: Output, *, everything: bool) -> int:
    name, text = experiment.find("quickstart")
    file = runfile.parse(text, name)
    if everything:
        file = with_all_methods(file)
    folder = output.folder or Path("out") / name
    output.console.print("One fed-server and four edge-agents, each a process of its own, speak gRPC on this machine.")
    code = _experiment(name, file, replace(output, folder=folder), Which(), Devices())
    console = output.console
    said = functools.partial(console.print, highlight=False, soft_wrap=True)
    said("\nwhere to go next")
    said(f"  {folder}/results.json      every task's seconds, memory and bytes; logs lie beside it")
    said("  fed-bench partition quickstart            a picture of who has which digits")
    said("  fed-bench run quickstart --set data.alpha=0.1 --out out/harder      other settings, same rows")
    said('  fed-server --help, edge-agent --help      the same on real devices; README.md, "Join a device"')
    return code


def run(name: str, output: Output, changed: Mapping[str, Any], which: Which, devices: Devices) -> int:
    check_devices(devices)
    stem, text = experiment.find(name)
    file = runfile.parse(text, name)
    if changed:
        file = runfile.with_overrides(file, changed)
    folder = output.folder or Path("out") / stem
    return _experiment(stem, file, replace(output, folder=folder), which, devices)


def show_table(folders: Sequence[Path], *, as_json: bool) -> int:
    for folder in folders:
        found = results.load(folder / "results.json")
        rows = list(found.table) or table.rows(found.runs)
        if as_json:
            print(json.dumps(results.as_json(rows)))
        else:
            print(f"### {found.experiment}\n\n{table.markdown(rows)}")
            if of_experts := expert_costs.markdown(found):
                print(of_experts)
    return 0


def draw_plots(folders: Sequence[Path]) -> int:
    for folder in folders:
        found = results.load(folder / "results.json")
        for path in (*plot.results(found, folder), *tree_picture.results(found, folder)):
            print(path)
    return 0


def draw_partition(name: str, to: Path, changed: Mapping[str, Any]) -> int:
    _, text = experiment.find(name)
    file = runfile.parse(text, name)
    print(partition_picture.draw(runfile.with_overrides(file, changed) if changed else file, to))
    return 0


def draw_features(name: str, row: str, to: Path, changed: Mapping[str, Any]) -> int:
    from benchmarks import feature_picture  # scikit-learn's t-SNE loads for this alone

    path, found = feature_picture.draw(name, row, to, changed)
    rows = [("static", found.static), ("trained", found.trained)]
    rows += [("static, the agent's classes", found.own_static), ("trained, the agent's classes", found.own_trained)]
    for what, numbers in rows:
        print(f"{what}: silhouette {numbers.silhouette:.3f}, nearest neighbours {100 * numbers.neighbours:.1f} %")
    print(path)
    return 0


def changes(pairs: Sequence[str]) -> dict[str, Any]:  # Any: TOML values
    """KEY=VALUE with TOML's values; what is none of them is taken as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, as in run.rounds=5, got {pair!r}")
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found


# ------------------------------------------------------------------ one experiment


def _experiment(
    name: str,
    file: RunFile,
    output: Output,
    which: Which,
    devices: Devices,
) -> int:
    folder, console = output.folder or Path("out") / name, output.console
    path = folder / "results.json"
    mark = secrets.token_hex(3) if devices.external else ""
    chains = which.chains(experiment.planned(file, which.seeds, mark=mark))
    notes = {chain[0].label: note for chain in chains if (note := need(chain))}
    able = [chain for chain in chains if chain[0].label not in notes]
    if notes and not able:
        raise ConfigError(f"no row of {name} can run here: {'; '.join(dict.fromkeys(notes.values()))}")
    for chain in able:
        experiment.n_agents(chain[0].file)  # before any run begins
    found = experiment.start(name, path)
    todo = experiment.unfinished(able, [*found.runs, *which.earlier(name)])
    if n_others := experiment.with_other_settings(todo, found.runs):
        said = (
            f"note: {n_others} finished in {folder} with other settings and will be replaced; another --out keeps them"
        )
        console.print(said, highlight=False, soft_wrap=True)
    _announce(console, able, todo, found, devices)
    for n_agents, group in groupby(todo, key=lambda chain: experiment.n_agents(chain[0].file)):
        of_state = "" if devices.external else experiment.mark(file, n_agents, devices.n_processes(n_agents))
        with _federation(folder, n_agents, devices, of_state, console) as federation:
            found = _run_all(list(group), federation, found, path, notes, console)
    found = replace(found, table=tuple(table.rows(found.runs, notes)))
    results.save(found, path)
    _show(found, folder, output)
    return EXIT_RUN if any(run.status != "done" for run in found.runs) else 0


def _announce(console: Console, able: list[Chain], todo: list[Chain], found: Results, devices: Devices) -> None:
    runs, left = sum(map(len, able)), sum(map(len, todo))
    finished = f", {runs - left} of them finished earlier" if left < runs else ""
    console.print(f"{runs} {'run' if runs == 1 else 'runs'}{finished}", highlight=False)
    if left and not devices.external:
        n_processes = devices.n_processes(experiment.n_agents(todo[0][0].file))
        at_once = min(n_processes, device.facts().cores)
        said = f"estimated time: {estimate.text(estimate.seconds(todo, found, at_once))}"
        console.print(said, highlight=False)


@contextlib.contextmanager
def _federation(folder: Path, n_agents: int, devices: Devices, of_state: str, console: Console) -> Iterator[Federation]:
    logs = folder / "logs"
    with fleet.server(logs, listen=devices.listen, flags=devices.server_flags, mark=of_state) as federation:
        if devices.external:
            _ask_for_devices(federation, n_agents, devices, console)
            yield federation
            return
        n_processes = devices.n_processes(n_agents)
        with fleet.agents(federation, logs, n_agents, n_processes=n_processes):
            yield federation


def _ask_for_devices(federation: Federation, n_agents: int, devices: Devices, console: Console) -> None:
    address = federation.address
    name, _, port = address.rpartition(":")
    if name in ("0.0.0.0", "[::]"):
        address = f"{_own_address()}:{port}"
    secure = "--insecure"
    if "--client-ca" in devices.server_flags:
        secure = "--tls-ca CA.pem --tls-cert DEVICE.pem --tls-key DEVICE.key"
    console.print(f"\nstart one of these on each device; {n_agents} agents are waited for:\n")
    for i in range(n_agents):
        console.print(f"  edge-agent --server {address} --name device-{i:02d} --data named {secure}", soft_wrap=True)
    console.print("\nor --data PATH for the device's own data (a folder of images, or an npz)")
    federation.wait_for(n_agents, EXTERNAL_JOIN_S)
    console.print(f"all {n_agents} agents are here")


def _run_all(
    chains: list[Chain],
    federation: Federation,
    found: Results,
    path: Path,
    notes: Mapping[str, str],
    console: Console,
) -> Results:
    """Each run's results are on disk before the next one starts."""
    order = [chain[0].label for chain in chains]
    plans = [plan for chain in chains for plan in chain]
    with _progress(console) as bar:
        whole = bar.add_task("all runs", total=sum(plan.file.run.rounds for plan in plans))
        for plan in plans:
            before = bar.tasks[0].completed

            def told(plan: Planned, event: pb.RunEvent, before: float = before) -> None:
                said = f"{plan.title}: {event.note}" if event.note else plan.title
                bar.update(whole, completed=before + event.summary.round, description=said)

            row = experiment.execute(plan, federation, told)
            found = experiment.kept(found, row, order, notes)
            results.save(found, path)
            bar.update(whole, completed=before + plan.file.run.rounds)
            if not console.is_terminal:
                console.print(_line(row), highlight=False)
    return found


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rounds"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)


def _line(row: results.RunRow) -> str:
    accuracy = table.pooled(row.final, "accuracy")
    said = f", accuracy {100 * accuracy:.1f} %" if accuracy is not None else ""
    title = " ".join(part for part in (row.label, row.stage, f"seed {row.seed}") if part)
    return f"{title}: {row.status}{said}, {row.seconds:.1f} s" + (f" ({row.reason})" if row.reason else "")


def _show(found: Results, folder: Path, output: Output) -> None:
    output.console.print(table.for_terminal(found.table, found.experiment))
    if any(run.evaluations for run in found.runs):
        drawn = ", ".join(str(p) for p in (*plot.results(found, folder), *tree_picture.results(found, folder)))
        output.console.print(f"plots: {drawn}", soft_wrap=True)
    if output.as_json:
        sys.stdout.write(json.dumps(results.as_json(found)) + "\n")


def need(chain: Chain) -> str:
    """Why a row cannot run here; empty when it can."""
    for plan in chain:
        try:
            estimate.learner_of(plan.file)
        except ConfigError as error:
            return "needs edgefed[torch]" if "edgefed[torch]" in str(error) else str(error)
    return ""


def with_all_methods(file: RunFile) -> RunFile:
    """A row for every method that the file has no row for, with the method's own defaults, where they suffice."""
    there = {row.set.get("run.method", file.run.method) for row in file.row}
    rows = list(file.row)
    for name in methods.names():
        if name not in there and getattr(methods.load(name), "MODEL", file.model.name) == file.model.name:
            row = Row(name, {"run.method": name})
            with contextlib.suppress(
                FederationError
            ):  # a method whose Config has no defaults asks for a file of its own
                list(runfile.expand(replace(file, row=(row,))))
                rows.append(row)
    return replace(file, row=tuple(rows))


def _own_address() -> str:
    """This machine's address on its network, as the route to the outside has it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
        except OSError:
            return socket.gethostname()
        address: str = probe.getsockname()[0]
        return address


def check_devices(devices: Devices) -> None:
    """That an external fleet is reached over TLS, or its owner said that it need not be."""
    if devices.external and not devices.server_flags:
        raise ConfigError(
            "external agents come over a network: give --tls-cert, --tls-key and --client-ca, or --insecure on a"
            " network that you trust",
            exit_code=EXIT_IDENTITY,
        )
