"""All runs of this server: submitted, resumed, watched, stopped. Each has an engine in a thread of its own."""

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from common import methods, pb, runfile
from common.blobs import Blobs
from common.errors import ConfigError, FederationError, LocalFault
from common.payloads import Blob, Payload
from common.run_sections import Variant
from common.wire import records
from server import initial, retention, selection
from server.beginning import DrawFirst
from server.engine import Engine
from server.fleet import Fleet
from server.inbox import Stopped
from server.journal import Journal
from server.ledger import Ledger
from server.watching import Watched, Watchers

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RETRY_S = 10.0  # after the disk was full, say
OVER = ("done", "stopped", "failed")
BY_OPERATOR = "stopped by an operator"


class Runs:
    def __init__(self, journal: Journal, blobs: Blobs, fleet: Fleet, *, draw_first: DrawFirst = initial.drawn) -> None:
        self._journal = journal
        self._blobs = blobs
        self._fleet = fleet
        self._draw_first = draw_first
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # what follows, and whether the server is closing
        self._engines: dict[str, Engine] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._watchers = Watchers(self._past)
        self._troubles: dict[str, str] = {}  # of runs that wait for the disk, where nothing can be written down
        self._stopping: set[str] = set()  # told to end, which is not written down yet
        self._closing = threading.Event()

    def start(self) -> None:
        """Take up what was under way when the server ended."""
        retention.consider_all(self._journal, self._blobs)
        for summary in self.list():
            if summary.status not in OVER:
                self._launch(summary.run)

    def close(self) -> None:
        """Let the engines end; their runs go on when the server comes back."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            engines, threads = list(self._engines.values()), list(self._threads.values())
        for engine in engines:
            engine.inbox.stop(for_good=False)
        for thread in threads:
            thread.join()

    def submit(self, text: str, name: str = "", files: Mapping[str, bytes] | None = None) -> pb.RunSummary:
        """Take the runs of a file (a run for each row and stage); gives the last of them.

        Raises:
            ConfigError: the file has mistakes, the name is taken, or an earlier run that it needs is not here.
        """
        file = runfile.parse(text, "the submitted run file")
        with self._lock:
            base = self._free_name(name, file.run.method)
            named = self._named(base, tuple(runfile.expand(file)))
            with self._journal.commit():
                for run, source, variant in named:
                    self._insert(run, source, variant, files or {})
        for run, _, _ in named:
            self._launch(run)
        return self._summary(named[-1][0])

    def list(self) -> list[pb.RunSummary]:
        return [self._with_trouble(summary) for summary in self._journal.summaries()]

    def detail(self, run: str) -> pb.RunDetail:
        row = self._row(run)
        rounds = self._journal.rows("SELECT report FROM rounds WHERE run = ? ORDER BY round", run)
        query = "SELECT report FROM evaluation_reports WHERE run = ? ORDER BY round, moment"
        return pb.RunDetail(
            summary=self._summary(run),
            config_toml=row["toml"],
            rounds=[pb.RoundReport.FromString(r["report"]) for r in rounds],
            evaluations=[pb.EvaluationReport.FromString(r["report"]) for r in self._journal.rows(query, run)],
        )

    def watch(self, run: str, from_round: int = 0) -> Watched:
        """The run's rounds from then on, those before first; None when it has ended."""
        return self._watchers.add(run, from_round, OVER)

    def unwatch(self, run: str, events: Watched) -> None:
        self._watchers.remove(run, events)

    def stop(self, run: str) -> pb.RunSummary:
        """End a run; its last State stays, and can be exported.

        Raises:
            LocalFault: the disk does not take it; the run ends when it does.
        """
        self._row(run)
        with self._changed:
            self._stopping.add(run)
            self._troubles.pop(run, None)
            self._changed.notify_all()
            engine, is_driven = self._engines.get(run), run in self._threads
        if engine is not None:
            engine.inbox.stop(for_good=True)
        if is_driven:
            self._wait_for_end(run)
        else:
            try:
                if self._summary(run).status not in OVER:
                    self._end(run, "stopped", BY_OPERATOR)
                self._launch_followers(run)
            finally:
                with self._lock:
                    self._stopping.discard(run)
        return self._summary(run)

    def _wait_for_end(self, run: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: run not in self._threads or run in self._troubles)
            if run in self._threads:
                raise LocalFault(f"run {run} is not stopped yet: {self._troubles[run]}")

    def export(self, run: str) -> dict[str, Payload]:
        """What the method calls its result, of the run's last State.

        Raises:
            ConfigError: there is no such run, or it has no State yet.
        """
        row = self._row(run)
        found = Ledger(self._journal, run).checkpoint()
        if found is None:
            raise ConfigError(f"run {run} has no state yet; it is {self._summary(run).status}")
        place, record = found
        settled = runfile.from_blob(Blob(runfile.MEDIA_TYPE, row["blob"]))
        spec = settled.at(max(1, min(place.round - 1, settled.file.run.rounds)))
        method = methods.load(spec.method)
        state = records.decode(
            method.State, record, lambda ref, _type: self._blobs.open(ref), where=f"run {run}: state"
        )
        return method.result(spec, state)

    # ------------------------------------------------------------------ submitting

    def _named(self, base: str, variants: Sequence[Variant]) -> Sequence[tuple[str, str, Variant]]:
        """(name, name of the run that it starts from or "", variant) for each."""
        named: list[tuple[str, str, Variant]] = []
        of_row: dict[tuple[str, str], str] = {}
        rows = {variant.label for variant in variants}
        for variant in variants:
            parts = [base, _slug(variant.label) if len(rows) > 1 else "", _slug(variant.stage)]
            run = ".".join(part for part in parts if part)
            of_row[variant.label, variant.stage] = run
            source = variant.file.run.init_from
            if source:
                source = of_row.get((variant.label, source), source)
                if source not in of_row.values() and self._journal.summary(source) is None:
                    raise ConfigError(f"[run] init_from: this server has no run {source!r}; it has {self._known()}")
                variant = self._with_memories(variant, source, {name: v.file.run.method for name, _, v in named})
            if self._journal.summary(run) is not None:
                raise ConfigError(f"this server has a run {run!r} already; choose another --name")
            named.append((run, source, variant))
        if len({run for run, _, _ in named}) < len(named):
            raise ConfigError("two rows of the run file have labels that make the same name; rename one")
        return named

    def _with_memories(self, variant: Variant, source: str, methods_of: Mapping[str, str]) -> Variant:
        """The run file with the name that agents know the run before by, where they begin with their memories of it."""
        mine = variant.file.run
        if mine.memory_from != "init_from":
            return variant
        theirs = methods_of.get(source) or self._row(source)["method"]
        if theirs != mine.method:
            raise ConfigError(
                f'[run] memory_from = "init_from" needs the same method: run {source!r} is of {theirs}, this one of'
                f" {mine.method}"
            )
        return replace(variant, file=runfile.with_overrides(variant.file, {"run.init_from": source}))

    def _insert(self, run: str, source: str, variant: Variant, files: Mapping[str, bytes]) -> None:
        file = selection.inlined(variant.file, files)
        if file.run.init != "seed" and file.run.init not in files:
            raise ConfigError(f"[run] init: {file.run.init} was not sent with the run file")
        toml, blob = runfile.to_toml(file), bytes(runfile.to_blob(file, run, file.data.classes).data)
        self._journal.write(
            "INSERT INTO runs(run, toml, blob, method, rounds, init_from, status, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?)",
            *(run, toml, blob, file.run.method, file.run.rounds, source, time.time()),
        )
        refs = {
            name: retention.put_pinned(self._journal, self._blobs, f"files {run}", Blob(initial.NPZ, data), "exact")
            for name, data in files.items()
            if name == file.run.init
        }
        for name, ref in refs.items():
            self._journal.write("INSERT INTO files VALUES (?, ?, ?)", run, name, ref.SerializeToString())
        retention.own(self._journal, f"files {run}", (ref.sha256 for ref in refs.values()))

    def _free_name(self, name: str, method: str) -> str:
        if name:
            if not NAME.fullmatch(name):
                raise ConfigError(f"the name of a run is letters, digits, '.', '_' and '-', at most 128: got {name!r}")
            return name
        taken = [summary.run for summary in self.list()]
        number = 1
        while any(run == f"{method}-{number}" or run.startswith(f"{method}-{number}.") for run in taken):
            number += 1
        return f"{method}-{number}"

    # ------------------------------------------------------------------ threads

    def _launch(self, run: str) -> None:
        """Start its engine, unless it is over, waits for an earlier run, or ends with that."""
        with self._journal.commit():  # neither run ends between the look and the word
            row = self._row(run)
            if row["status"] in OVER:
                return
            source, reason = row["init_from"], ""
            before = self._journal.summary(source) if source else None
            if before is not None and before.status not in OVER:
                self._journal.write("UPDATE runs SET reason = ? WHERE run = ?", f"waiting for run {source}", run)
                return
            if before is not None and before.status != "done":
                reason = f"it starts from run {source}, which is {before.status}"
                self._journal.set_status(run, "failed", reason)
        if reason:
            self._has_ended(run, "failed", reason)
            self._launch_followers(run)
            return
        with self._lock:
            is_taken = run in self._threads or run in self._stopping or self._closing.is_set()
            if not is_taken and self._row(run)["status"] not in OVER:
                thread = threading.Thread(target=self._drive, args=(run,), name=f"run-{run}")
                self._threads[run] = thread
                thread.start()

    def _launch_followers(self, run: str) -> None:
        """Start what waited for this run, or end it with this."""
        query = "SELECT run FROM runs WHERE init_from = ? AND status = 'waiting'"
        for follower in self._journal.rows(query, run):
            self._launch(follower["run"])

    def _drive(self, run: str) -> None:
        """One thread: the engine, again after faults of the disk, until the run or the server ends."""
        try:
            while not self._closing.is_set():
                is_told = run in self._stopping  # then this attempt is to end it
                if self._attempt(run, is_told=is_told):
                    break
                self._pause(run, is_told=is_told)
                log.info("run_resumes run=%s", run)
        finally:
            with self._changed:  # last: `close` waits for the threads that it finds
                self._engines.pop(run, None)
                self._threads.pop(run, None)
                self._troubles.pop(run, None)
                self._stopping.discard(run)
                self._changed.notify_all()

    def _attempt(self, run: str, *, is_told: bool) -> bool:
        """Drive the run once; False when it should be tried again."""
        try:
            if self._summary(run).status not in OVER:
                self._to_the_end(run)
            if self._summary(run).status in OVER:
                self._launch_followers(run)
        except LocalFault as fault:
            log.error("run_interrupted run=%s reason=%s", run, fault)
            trouble = f"interrupted, tried again every {RETRY_S:g} s: {fault}"
            with self._changed:
                if run in self._stopping and not is_told:
                    return False  # told meanwhile: nobody has tried to end it yet
                self._troubles[run] = trouble
                self._changed.notify_all()
            self._watchers.publish(run, pb.RunEvent(summary=self._summary(run), note=trouble))
            return False
        return True

    def _to_the_end(self, run: str) -> None:
        """Until the run ends, or the server does.

        Raises:
            LocalFault: the disk; nothing is lost, try again.
        """
        engine = None
        try:
            engine = self._engine(run)
            self._watchers.catch_up(run)
            engine.drive()
            self._tell_end(run)
        except Stopped as stopped:
            if stopped.for_good:
                self._end(run, "stopped", BY_OPERATOR)
        except LocalFault:
            raise
        except FederationError as fault:
            self._end(run, "failed", str(fault))
        except Exception as error:  # the outermost loop: a fault in one method must not touch the other runs
            log.exception("run_failed run=%s", run)
            self._end(run, "failed", f"fault in method or server: {type(error).__name__}: {error}")
        finally:
            if engine is not None:
                engine.close()

    def _engine(self, run: str) -> Engine:
        if run in self._stopping:
            raise Stopped(for_good=True)
        engine = Engine(
            run,
            self._journal,
            self._blobs,
            self._fleet,
            folder=self._blobs.path(bytes(32)).parent,
            publish=lambda event: self._watchers.publish(run, event),
            draw_first=self._draw_first,
        )
        with self._lock:  # who stops the run or the server from here on finds the engine
            self._engines[run] = engine
            self._troubles.pop(run, None)
            if run in self._stopping or self._closing.is_set():
                engine.inbox.stop(for_good=run in self._stopping)
        return engine

    def _pause(self, run: str, *, is_told: bool) -> None:
        """Let some time pass, unless the run or the server is told to stop meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing.is_set() or (run in self._stopping and not is_told), RETRY_S)

    def _end(self, run: str, status: str, reason: str) -> None:
        self._journal.set_status(run, status, reason)
        self._has_ended(run, status, reason)

    def _has_ended(self, run: str, status: str, reason: str) -> None:
        self._troubles.pop(run, None)
        log.info("run_ended run=%s status=%s reason=%s", run, status, reason)
        self._tell_end(run)

    def _tell_end(self, run: str) -> None:
        self._fleet.forget(run)
        self._watchers.publish(run, pb.RunEvent(summary=self._summary(run)))
        self._watchers.end(run)

    # ------------------------------------------------------------------ small things

    def _past(self, run: str) -> tuple[pb.RunDetail, int]:
        """What the journal has of a run, and how many of its rounds are over."""
        detail, found = self.detail(run), Ledger(self._journal, run).checkpoint()
        return detail, 0 if found is None else found[0].round - 1

    def _summary(self, run: str) -> pb.RunSummary:
        found = self._journal.summary(run)
        if found is None:
            raise ConfigError(f"this server has no run {run!r}; it has {self._known()}")
        return self._with_trouble(found)

    def _with_trouble(self, summary: pb.RunSummary) -> pb.RunSummary:
        summary.reason = self._troubles.get(summary.run, summary.reason)
        return summary

    def _row(self, run: str) -> "Mapping[str, Any]":
        found = self._journal.row("SELECT * FROM runs WHERE run = ?", run)
        if found is None:
            raise ConfigError(f"this server has no run {run!r}; it has {self._known()}")
        return dict(found)

    def _known(self) -> str:
        return ", ".join(summary.run for summary in self.list()) or "none"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
