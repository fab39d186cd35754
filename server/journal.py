"""What the server must not forget, in one SQLite file; and the lock of the state folder.

Every change is one transaction, durable when `commit` returns (WAL, synchronous = FULL: one fsync a commit). What
belongs together is done within one `with journal.commit():`, which may be nested. Payloads are not here: they are
files in Blobs, kept as long as some owner refers to them (retention.py).
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from common import pb
from common.errors import EXIT_STATE, ConfigError, LocalFault
from common.task_key import Key

FORMAT = 2  # of the tables below; a folder of a newer one is refused, one of an older one brought up to date

TABLES = """
-- told to agents when they join: runs of the same name in another journal are other runs
CREATE TABLE server(id TEXT NOT NULL);
INSERT INTO server VALUES (lower(hex(randomblob(16))));
CREATE TABLE hosts(host TEXT PRIMARY KEY, instance TEXT NOT NULL, hello BLOB NOT NULL, seen_at REAL NOT NULL);
CREATE TABLE runs(
  run TEXT PRIMARY KEY, toml TEXT NOT NULL, blob BLOB NOT NULL, settled INTEGER NOT NULL DEFAULT 0,
  method TEXT NOT NULL, rounds INTEGER NOT NULL, init_from TEXT NOT NULL, status TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL, finished_at REAL NOT NULL DEFAULT 0);
CREATE TABLE files(run TEXT, name TEXT, ref BLOB NOT NULL, PRIMARY KEY(run, name)) WITHOUT ROWID;
-- agents that have looked at a run; position: index among those with named data; merged: last merged step;
-- described: digest of what their host said of them when they were asked to look, NULL when that is not known
CREATE TABLE agents(
  run TEXT, agent TEXT, prepared BLOB, position INTEGER,
  memory_step INTEGER NOT NULL DEFAULT -1, merged_step INTEGER NOT NULL DEFAULT -1, spans BLOB NOT NULL DEFAULT x'',
  described BLOB, PRIMARY KEY(run, agent)) WITHOUT ROWID;
CREATE TABLE checkpoints(
  run TEXT PRIMARY KEY, step INTEGER NOT NULL, round INTEGER NOT NULL, phase INTEGER NOT NULL,
  record BLOB NOT NULL, digest BLOB NOT NULL);
-- wanted: replies that complete the step; needed: replies without which it is missed, known when it closes
CREATE TABLE steps(
  run TEXT, step INTEGER, round INTEGER NOT NULL, phase INTEGER NOT NULL, status TEXT NOT NULL,
  wanted INTEGER NOT NULL, needed INTEGER NOT NULL DEFAULT 0, opened_at REAL NOT NULL,
  PRIMARY KEY(run, step)) WITHOUT ROWID;
-- the AgentInfos that plan() saw; again: what it saw of one agent when it planned for that one alone
CREATE TABLE planned(
  run TEXT, step INTEGER, agent TEXT, info BLOB NOT NULL, again BLOB, PRIMARY KEY(run, step, agent)) WITHOUT ROWID;
CREATE TABLE replies(
  run TEXT, step INTEGER, agent TEXT, kind INTEGER, digest BLOB NOT NULL, header BLOB NOT NULL,
  PRIMARY KEY(run, step, agent, kind)) WITHOUT ROWID;
CREATE TABLE closed(
  run TEXT, step INTEGER, agent TEXT, digest BLOB NOT NULL, PRIMARY KEY(run, step, agent)) WITHOUT ROWID;
CREATE TABLE rounds(run TEXT, round INTEGER, report BLOB NOT NULL, PRIMARY KEY(run, round)) WITHOUT ROWID;
-- evaluation offers on the State after `step`; agents, missing: who is asked and who is not there, one name a line
CREATE TABLE evaluations(
  run TEXT, step INTEGER, round INTEGER NOT NULL, status TEXT NOT NULL, agents TEXT NOT NULL,
  missing TEXT NOT NULL, PRIMARY KEY(run, step)) WITHOUT ROWID;
CREATE TABLE evaluation_reports(
  run TEXT, round INTEGER, moment TEXT, report BLOB NOT NULL, PRIMARY KEY(run, round, moment)) WITHOUT ROWID;
CREATE TABLE results(run TEXT, name TEXT, ref BLOB NOT NULL, PRIMARY KEY(run, name)) WITHOUT ROWID;
CREATE TABLE refs(owner TEXT, sha256 BLOB, PRIMARY KEY(owner, sha256)) WITHOUT ROWID;
CREATE INDEX refs_by_digest ON refs(sha256);
"""
UPGRADES = {  # from that format to the next; spans are measured again
    1: "ALTER TABLE agents ADD COLUMN described BLOB; UPDATE agents SET spans = x'';"
}
# What need not survive: payloads in use by a transfer or an open step, and those that lost an owner.
MEMORY_TABLES = """
CREATE TEMP TABLE pins(owner TEXT, sha256 BLOB, PRIMARY KEY(owner, sha256)) WITHOUT ROWID;
CREATE INDEX temp.pins_by_digest ON pins(sha256);
CREATE TEMP TABLE candidates(sha256 BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class Journal:
    """Thread-safe; one process at a time, guarded by a lock on the folder.

    Raises:
        ConfigError: the folder is locked by another process, cannot be written, or is of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._depth = 0
        self._guard = _locked(folder)
        try:
            self._db = _opened(folder)
        except BaseException:
            self._guard.close()
            raise

    @property
    def server_id(self) -> str:
        row = self.row("SELECT id FROM server")
        if row is None:
            raise LocalFault(f"the journal in {self.folder} has lost the id of its server")
        return str(row["id"])

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._guard.close()

    @contextmanager
    def commit(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable at the end of the outermost `with`; nothing of it happens when that raises.

        Raises:
            LocalFault: the disk is full or broken.
        """
        with self._lock:
            outermost = self._depth == 0
            self._depth += 1
            try:
                if outermost:
                    self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                if outermost:
                    self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise LocalFault(
                    f"cannot write the journal in {self.folder}: {error}; free space on that disk, nothing is lost"
                ) from error
            finally:
                self._depth -= 1
                if outermost and self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def holding(self) -> Iterator[sqlite3.Connection]:
        """The lock, to read or write what need not survive (MEMORY_TABLES) with nobody in between."""
        with self._lock:
            yield self._db

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> sqlite3.Row | None:
        with self._lock:
            found: sqlite3.Row | None = self._db.execute(query, values).fetchone()
            return found

    def write(self, statement: str, *values: object) -> int:
        """Do it, alone or within the open commit; gives how many rows changed."""
        with self.commit() as db:
            return db.execute(statement, values).rowcount

    # ------------------------------------------------------------------ hosts

    def save_host(self, host: str, instance: str, hello: bytes, seen_at: float) -> None:
        self.write("INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?)", host, instance, hello, seen_at)

    def hosts(self) -> list[tuple[str, str, bytes, float]]:
        return [tuple(row) for row in self.rows("SELECT host, instance, hello, seen_at FROM hosts ORDER BY host")]

    # ------------------------------------------------------------------ runs

    def summary(self, run: str) -> pb.RunSummary | None:
        found = self.summaries("WHERE run = ?", run)
        return found[0] if found else None

    def summaries(self, where: str = "", *values: object) -> list[pb.RunSummary]:
        query = f"""SELECT runs.run AS run, method, status, rounds, reason, created_at, finished_at, round, digest
            FROM runs LEFT JOIN checkpoints USING (run) {where} ORDER BY runs.rowid"""
        return [
            pb.RunSummary(
                run=row["run"],
                method=row["method"],
                status=row["status"],
                round=min(row["round"] or 0, row["rounds"]),
                rounds=row["rounds"],
                reason=row["reason"],
                created_at=row["created_at"],
                finished_at=row["finished_at"],
                state_sha256=(row["digest"] or b"").hex(),
            )
            for row in self.rows(query, *values)
        ]

    def set_status(self, run: str, status: str, reason: str = "") -> None:
        finished = time.time() if status in ("done", "stopped", "failed") else 0
        self.write(
            "UPDATE runs SET status = ?, reason = ?, finished_at = ? WHERE run = ?", status, reason, finished, run
        )

    # ------------------------------------------------------------------ replies

    def is_open(self, key: Key) -> bool:
        """Whether a reply of this key would be taken now."""
        table = "evaluations" if key.kind == pb.EVALUATE else "steps"
        query = f"SELECT 1 FROM {table} WHERE run = ? AND step = ? AND status = 'open'"
        return self.row(query, key.run, key.step) is not None

    def is_over(self, key: Key) -> bool:
        """Whether its step is done or missed; whom it asked may be forgotten."""
        query = "SELECT 1 FROM steps WHERE run = ? AND step = ? AND status IN ('done', 'missed')"
        return self.row(query, key.run, key.step) is not None

    def was_last_merged(self, key: Key) -> bool:
        query = "SELECT 1 FROM agents WHERE run = ? AND agent = ? AND merged_step = ?"
        return key.kind == pb.WORK and self.row(query, key.run, key.agent, key.step) is not None

    def was_asked(self, key: Key) -> bool:
        if key.kind == pb.EVALUATE:
            row = self.row("SELECT agents FROM evaluations WHERE run = ? AND step = ?", key.run, key.step)
            return row is not None and key.agent in row["agents"].split("\n")
        query = "SELECT 1 FROM planned WHERE run = ? AND step = ? AND agent = ?"
        return self.row(query, key.run, key.step, key.agent) is not None

    def reply_digest(self, key: Key) -> bytes | None:
        query = "SELECT digest FROM replies WHERE run = ? AND step = ? AND agent = ? AND kind = ?"
        row = self.row(query, *key)
        return None if row is None else bytes(row["digest"])

    def headers(self, run: str, step: int, kind: "pb.TaskKind") -> Iterator[pb.RecordHeader]:
        """Accepted replies by agent name, one at a time."""
        names = self.rows(
            "SELECT agent FROM replies WHERE run = ? AND step = ? AND kind = ? ORDER BY agent", run, step, kind
        )
        query = "SELECT header FROM replies WHERE run = ? AND step = ? AND agent = ? AND kind = ?"
        for name in names:
            row = self.row(query, run, step, name["agent"], kind)
            if row is not None:
                yield pb.RecordHeader.FromString(row["header"])


def _locked(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        guard = (folder / "lock").open("a+")
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(guard.fileno(), 0)
        os.write(guard.fileno(), str(os.getpid()).encode())  # unbuffered: on a full disk `close` would fail again
    except BlockingIOError as error:
        guard.seek(0)
        holder = guard.read() or "unknown"
        guard.close()
        raise ConfigError(
            f"state folder {folder} is in use by another fed-server; stop it or give this one another --state-dir:"
            f" process {holder}",
            exit_code=EXIT_STATE,
        ) from error
    except OSError as error:
        guard.close()
        raise _unwritable(folder, error) from error
    return guard


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write state folder {folder}: {error.strerror}; free some space there, or give another --state-dir",
        exit_code=EXIT_STATE,
    )


def _opened(folder: Path) -> sqlite3.Connection:
    db: Any = None  # Any: sqlite3 gives untyped rows
    try:
        db = sqlite3.connect(folder / "journal.sqlite", isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA temp_store = MEMORY")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise ConfigError(
                f"state folder {folder} was written by a newer version of fed-server; install that one, or use another"
                f" --state-dir: expected format {FORMAT} or older, got {version}",
                exit_code=EXIT_STATE,
            )
        if version == 0:
            db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
        for older in range(version, FORMAT) if version else ():
            db.executescript(f"BEGIN; {UPGRADES[older]} PRAGMA user_version = {older + 1}; COMMIT;")
        db.executescript(MEMORY_TABLES)
    except sqlite3.DatabaseError as error:
        if db is not None:
            db.close()
        raise ConfigError(
            f"cannot use the journal in state folder {folder}, is its disk full or is that another file? {error}",
            exit_code=EXIT_STATE,
        ) from error
    except ConfigError:
        db.close()
        raise
    opened: sqlite3.Connection = db
    return opened
