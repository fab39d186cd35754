"""What one run's engine reads from and writes into the journal: its place, its steps, who replied, what was merged."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from common import pb
from common.blobs import Blobs
from common.method import AgentInfo
from common.payloads import Payload
from common.wire import records
from server import planning, retention
from server.drafts import Report
from server.journal import Journal

# Steps whose rows stay when they are over, so that a duplicate gets its own receipt again. Without an end a run of
# 100 agents would leave 15 KB more in each step. Later, what an agent's last merged step was is still known.
REMEMBERED = 64


@dataclass(frozen=True)
class Place:
    """A step of the run: its number, its round (from 1), and which of the round's phases it is."""

    step: int
    round: int
    phase: int


@dataclass(frozen=True)
class StepRow:
    status: str  # open, closed (to be merged), missed, done
    wanted: int
    needed: int


@dataclass(frozen=True)
class EvaluationRow:
    step: int
    round: int
    agents: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    journal: Journal
    run: str

    # ------------------------------------------------------------------ where the run is

    def checkpoint(self) -> tuple[Place, pb.Record] | None:
        """The step that comes next, and the State that it starts from."""
        row = self.journal.row("SELECT step, round, phase, record FROM checkpoints WHERE run = ?", self.run)
        if row is None:
            return None
        return Place(row["step"], row["round"], row["phase"]), pb.Record.FromString(row["record"])

    def begin(self, record: pb.Record) -> None:
        with self.journal.commit() as db:
            digest, data = records.digest(record), record.SerializeToString()
            db.execute("INSERT INTO checkpoints VALUES (?, 0, 1, 0, ?, ?)", (self.run, data, digest))
            retention.own(self.journal, self._owner, (ref.sha256 for ref in record.payloads))
            self.journal.set_status(self.run, "running")

    def advance(self, done: int, after: Place, record: pb.Record | None) -> None:
        """The step is over; with a record it was merged into that State, without one the State stays."""
        with self.journal.commit() as db:
            here = (self.run, done)
            self._learn(done)
            place = (after.step, after.round, after.phase)
            db.execute("UPDATE checkpoints SET step = ?, round = ?, phase = ? WHERE run = ?", (*place, self.run))
            db.execute(
                "UPDATE steps SET status = ? WHERE run = ? AND step = ?", ("done" if record else "missed", *here)
            )
            if record is not None:
                values = (record.SerializeToString(), records.digest(record), self.run)
                db.execute("UPDATE checkpoints SET record = ?, digest = ? WHERE run = ?", values)
                retention.own(self.journal, self._owner, (ref.sha256 for ref in record.payloads))
                db.execute(
                    "UPDATE agents SET memory_step = ?1, merged_step = ?1 WHERE run = ?2 AND agent IN"
                    " (SELECT agent FROM closed WHERE run = ?2 AND step = ?1)",
                    (done, self.run),
                )
            # what stays of a step that is over: who was asked, and the digests that answer a duplicate
            retention.disown_replies(self.journal, self.run, done)
            db.execute("UPDATE planned SET info = x'', again = NULL WHERE run = ? AND step = ?", here)
            db.execute("UPDATE replies SET header = x'' WHERE run = ? AND step = ? AND kind = ?", (*here, pb.WORK))
            for table in ("planned", "replies", "closed"):
                db.execute(f"DELETE FROM {table} WHERE run = ? AND step <= ?", (self.run, done - REMEMBERED))

    # ------------------------------------------------------------------ a step

    def step(self, number: int) -> StepRow | None:
        row = self.journal.row("SELECT status, wanted, needed FROM steps WHERE run = ? AND step = ?", self.run, number)
        return None if row is None else StepRow(row["status"], row["wanted"], row["needed"])

    def open_step(self, place: Place, infos: Iterable[AgentInfo], wanted: int) -> None:
        with self.journal.commit() as db:
            values = (self.run, place.step, place.round, place.phase, "open", wanted, 0, time.time())
            db.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            rows = [(self.run, place.step, info.name, planning.encoded(info)) for info in infos]
            db.executemany("INSERT INTO planned(run, step, agent, info) VALUES (?, ?, ?, ?)", rows)

    def planned(self, number: int) -> tuple[tuple[AgentInfo, ...], dict[str, AgentInfo]]:
        """What plan() saw, by agent name; and what it saw of those that it planned for again, alone."""
        query = "SELECT info, again FROM planned WHERE run = ? AND step = ? ORDER BY agent"
        rows = self.journal.rows(query, self.run, number)
        again = [planning.decoded_info(row["again"]) for row in rows if row["again"] is not None]
        return tuple(planning.decoded_info(row["info"]) for row in rows), {info.name: info for info in again}

    def plan_again(self, number: int, info: AgentInfo) -> None:
        with self.journal.commit() as db:
            here = (self.run, number, info.name)
            db.execute(
                "UPDATE planned SET again = ? WHERE run = ? AND step = ? AND agent = ?", (planning.encoded(info), *here)
            )
            self.set_memory(info.name, info.memory_step)

    def set_memory(self, agent: str, memory_step: int) -> None:
        self.journal.write(
            "UPDATE agents SET memory_step = ? WHERE run = ? AND agent = ?", memory_step, self.run, agent
        )

    def replied(self, number: int, kind: "pb.TaskKind" = pb.WORK) -> set[str]:
        query = "SELECT agent FROM replies WHERE run = ? AND step = ? AND kind = ?"
        return {row["agent"] for row in self.journal.rows(query, self.run, number, kind)}

    def close_step(self, number: int, tasks: Collection[str], needed: int) -> bool:
        """No reply is taken from now on; whether there is something to merge.

        Writes down which replies of which content are merged.
        """
        with self.journal.commit() as db:
            accepted = self.replied(number) & set(tasks)
            merges = len(accepted) >= max(needed, 1) or not tasks
            status = "closed" if merges else "missed"
            values = (status, needed, self.run, number)
            db.execute("UPDATE steps SET status = ?, needed = ? WHERE run = ? AND step = ?", values)
            if merges:
                query = (
                    "INSERT INTO closed SELECT run, step, agent, digest FROM replies"
                    " WHERE run = ? AND step = ? AND agent = ? AND kind = ?"
                )
                db.executemany(query, ((self.run, number, agent, pb.WORK) for agent in accepted))
            return merges

    def closed(self, number: int) -> list[str]:
        query = "SELECT agent FROM closed WHERE run = ? AND step = ? ORDER BY agent"
        return [row["agent"] for row in self.journal.rows(query, self.run, number)]

    def leave_out(self, number: int, agent: str) -> None:
        """A reply that `merge` cannot use: it no longer counts."""
        self.journal.write("DELETE FROM closed WHERE run = ? AND step = ? AND agent = ?", self.run, number, agent)

    def header(self, number: int, agent: str, kind: "pb.TaskKind" = pb.WORK) -> pb.RecordHeader | None:
        query = "SELECT header FROM replies WHERE run = ? AND step = ? AND agent = ? AND kind = ?"
        row = self.journal.row(query, self.run, number, agent, kind)
        return None if row is None else pb.RecordHeader.FromString(row["header"])

    def merged_steps(self) -> dict[str, int]:
        """agent -> the last step of it that was merged."""
        rows = self.journal.rows("SELECT agent, merged_step FROM agents WHERE run = ?", self.run)
        return {row["agent"]: row["merged_step"] for row in rows}

    # ------------------------------------------------------------------ evaluations and reports

    def open_evaluation(self, evaluation: EvaluationRow) -> None:
        names = ("\n".join(evaluation.agents), "\n".join(evaluation.missing))
        values = (self.run, evaluation.step, evaluation.round, "open", *names)
        self.journal.write("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?)", *values)

    def evaluation(self) -> EvaluationRow | None:
        """The one that is open, if any."""
        row = self.journal.row("SELECT * FROM evaluations WHERE run = ? AND status = 'open'", self.run)
        if row is None:
            return None
        agents, missing = (tuple(filter(None, row[name].split("\n"))) for name in ("agents", "missing"))
        return EvaluationRow(row["step"], row["round"], agents, missing)

    def close_evaluation(self, step: int) -> None:
        with self.journal.commit() as db:
            db.execute("UPDATE evaluations SET status = 'done' WHERE run = ? AND step = ?", (self.run, step))

    def forget_evaluation(self, step: int) -> None:
        """Its reports hold all that was in the replies."""
        self.journal.write(
            "UPDATE replies SET header = x'' WHERE run = ? AND step = ? AND kind = ?", self.run, step, pb.EVALUATE
        )

    def save(self, reports: Iterable[Report]) -> None:
        with self.journal.commit() as db:
            for report in reports:
                data = report.SerializeToString()
                if isinstance(report, pb.RoundReport):
                    db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (self.run, report.round, data))
                else:
                    values = (self.run, report.round, report.moment, data)
                    db.execute("INSERT OR REPLACE INTO evaluation_reports VALUES (?, ?, ?, ?)", values)

    def round_report(self, round_number: int) -> pb.RoundReport | None:
        row = self.journal.row("SELECT report FROM rounds WHERE run = ? AND round = ?", self.run, round_number)
        return None if row is None else pb.RoundReport.FromString(row["report"])

    def finish(self, blobs: Blobs, result: Mapping[str, Payload]) -> None:
        """Keep what `result` gave, and say that the run is done."""
        owner = f"result {self.run}"
        refs = {name: retention.put_pinned(self.journal, blobs, owner, p, "exact") for name, p in result.items()}
        with self.journal.commit() as db:
            rows = [(self.run, name, ref.SerializeToString()) for name, ref in refs.items()]
            db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
            retention.own(self.journal, owner, (ref.sha256 for ref in refs.values()))
            self.journal.set_status(self.run, "done")
        retention.unpin(self.journal, owner)

    def result(self) -> dict[str, pb.PayloadRef]:
        rows = self.journal.rows("SELECT name, ref FROM results WHERE run = ? ORDER BY name", self.run)
        return {row["name"]: pb.PayloadRef.FromString(row["ref"]) for row in rows}

    # ------------------------------------------------------------------

    def _learn(self, number: int) -> None:
        """The spans that the replies reported, for the AgentInfos of later steps."""
        for header in self.journal.headers(self.run, number, pb.WORK):
            where = (self.run, header.key.agent)
            row = self.journal.row("SELECT spans FROM agents WHERE run = ? AND agent = ?", *where)
            if row is not None:
                spans = planning.latest_spans(row["spans"], header.report, number)
                self.journal.write("UPDATE agents SET spans = ? WHERE run = ? AND agent = ?", spans, *where)

    @property
    def _owner(self) -> str:
        return f"checkpoint {self.run}"
