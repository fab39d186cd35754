"""What an operator asks of a running server: one call each, answered in lines, or in JSON for machines."""

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from common import data_files, pb, run_taxonomy, runfile
from common.errors import EXIT_RUN, EXIT_STATE, ConfigError
from server import exporting, tables
from server.asking import Asking, connect

GOING = ("waiting", "running")
FILES = (".npz", ".json")  # what a run file may name: first weights, a partition, a list of agents per round


def run(arguments: argparse.Namespace) -> int:
    commands = {
        "submit": submit,
        "ls": ls,
        "show": show,
        "watch": watch,
        "stop": stop,
        "agents": agents,
        "export": export,
    }
    with connect(arguments) as server:
        return commands[arguments.command](server, arguments)


def submit(server: Asking, arguments: argparse.Namespace) -> int:
    text = read_text(arguments.file)
    files = named_files(arguments.file, text)
    file = runfile.parse(text, str(arguments.file))
    if file.data.taxonomy is not None:
        text = runfile.to_toml(run_taxonomy.inlined(file, arguments.file.parent))
    request = pb.SubmitRunRequest(run_toml=text, name=arguments.name or "", files=files)
    summary = server.ask("SubmitRun", request, pb.RunSummary)
    if not arguments.watch:
        n_runs = len(list(runfile.expand(file)))
        others = f"{n_runs} runs, which fed-server ls shows; the last is " if n_runs > 1 else ""
        said = f"{others}{summary.run}: {summary.status}; follow it with: fed-server watch {summary.run}"
        emit(arguments, summary, said)
        return 0
    return follow(server, arguments, summary.run, 0)


def ls(server: Asking, arguments: argparse.Namespace) -> int:
    reply = server.ask("ListRuns", pb.ListRunsRequest(), pb.ListRunsReply)
    emit(
        arguments, reply, tables.of_runs(reply.runs) if reply.runs else "no runs yet; start one with fed-server submit"
    )
    return 0


def show(server: Asking, arguments: argparse.Namespace) -> int:
    detail = server.ask("ShowRun", pb.ShowRunRequest(run=arguments.run), pb.RunDetail)
    if arguments.round is None:
        emit(arguments, detail, tables.of_run(detail))
        return 0
    found = [report for report in detail.rounds if report.round == arguments.round]
    if not found:
        known = [report.round for report in detail.rounds]
        had = f"{known[0]} to {known[-1]}" if known else "none"
        raise ConfigError(f"--round: run {arguments.run} has no report of that round: has {had}, got {arguments.round}")
    emit(arguments, found[0], tables.of_round(found[0]))
    return 0


def watch(server: Asking, arguments: argparse.Namespace) -> int:
    return follow(server, arguments, arguments.run, arguments.from_round)


def stop(server: Asking, arguments: argparse.Namespace) -> int:
    """A run, or those that are not over of all that a pattern names."""
    names = [arguments.run]
    if set(arguments.run) & set("*?["):
        known = server.ask("ListRuns", pb.ListRunsRequest(), pb.ListRunsReply).runs
        names = [run.run for run in known if fnmatchcase(run.run, arguments.run) and run.status in GOING]
        if not names:
            raise ConfigError(f"no run that waits or runs has a name like {arguments.run!r}; fed-server ls shows them")
    for name in reversed(names):  # the last first: none starts because the one before it has ended
        summary = server.ask("StopRun", pb.StopRunRequest(run=name), pb.RunSummary)
        emit(arguments, summary, f"{summary.run}: {summary.status} after round {summary.round} of {summary.rounds}")
    return 0


def agents(server: Asking, arguments: argparse.Namespace) -> int:
    reply = server.ask("ListAgents", pb.ListAgentsRequest(), pb.ListAgentsReply)
    text = tables.of_agents(reply.agents, time.time()) if reply.agents else "no agents yet; start one with edge-agent"
    emit(arguments, reply, text)
    return 0


def export(server: Asking, arguments: argparse.Namespace) -> int:
    folder = Path(arguments.run) if arguments.out is None else arguments.out
    parts = server.stream("ExportRun", pb.ExportRunRequest(run=arguments.run), pb.ExportPart)
    try:
        written = list(exporting.write(parts, folder))
    except OSError as error:
        raise ConfigError(
            f"cannot write into {folder}: {error.strerror or error}; choose another folder with --out",
            exit_code=EXIT_STATE,
        ) from error
    if arguments.json:
        say(json.dumps({"run": arguments.run, "files": {name: str(path) for name, path in written}}))
    else:
        say("\n".join(f"{path}" for _, path in written) or f"run {arguments.run} has no result to export")
    return 0


def follow(server: Asking, arguments: argparse.Namespace, run: str, from_round: int) -> int:
    """Until the run has ended; EXIT_RUN when it failed or was stopped."""
    events: Iterator[pb.RunEvent] = server.stream(
        "WatchRun", pb.WatchRunRequest(run=run, from_round=from_round), pb.RunEvent
    )
    last = pb.RunSummary(run=run)
    if not arguments.json and sys.stdout.isatty():
        events = with_bar(events)
    for event in events:
        if event.HasField("summary"):
            last = event.summary
        if arguments.json:
            say(json.dumps(tables.plain(event)))
        elif line := tables.of_event(event):
            say(line)
    if last.status in ("failed", "stopped"):
        sys.stderr.write(f"fed-server: run {run} {last.status}{': ' + last.reason if last.reason else ''}\n")
        return EXIT_RUN
    return 0


def with_bar(events: Iterator[pb.RunEvent]) -> Iterator[pb.RunEvent]:
    """The same events, with a bar of rounds beneath them where rich is installed."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield from events
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("rounds", total=None)
        for event in events:
            if event.HasField("summary"):
                progress.update(bar, description=event.summary.run, total=event.summary.rounds or None)
                progress.update(bar, completed=event.summary.round)
            yield event


def emit(arguments: argparse.Namespace, message: "tables.Message", text: str) -> None:
    say(json.dumps(tables.plain(message)) if arguments.json else text)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the run file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the run file {path}: it is not text in UTF-8 ({error.reason})") from error


def named_files(path: Path, text: str) -> dict[str, bytes]:
    """The files that a run file names, by the name that it gives them; they travel with it."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: this is not TOML: {error}") from error
    found = {}
    for name in _texts(table):
        if name.endswith(FILES):
            file = data_files.found(name, path.parent)
            try:
                found[name] = file.read_bytes()
            except OSError as error:
                raise ConfigError(f"{path} names a file that cannot be read: {file}: {error.strerror}") from error
    return found


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
