"""Which payload files stay: those that an owner in the journal refers to, or that something holds right now.

An owner is a text: "checkpoint RUN", "reply RUN STEP AGENT KIND", "result RUN". A file that loses its last owner
becomes a candidate and goes at the next `sweep`, which the engines do after a checkpoint.
"""

import logging
from collections.abc import Iterable

from common import pb
from common.blobs import Blobs
from common.payloads import Encoding
from common.task_key import Key
from common.wire.canonical import Sendable
from server.journal import Journal

log = logging.getLogger(__name__)


def reply_owner(key: Key) -> str:
    return f"reply {key.run} {key.step} {key.agent} {key.kind}"


def own(journal: Journal, owner: str, digests: Iterable[bytes]) -> None:
    """Let the owner refer to exactly these; what it no longer does is a candidate."""
    wanted = set(digests)
    with journal.commit() as db:
        before = {bytes(row[0]) for row in db.execute("SELECT sha256 FROM refs WHERE owner = ?", (owner,))}
        gone = before - wanted
        db.executemany("DELETE FROM refs WHERE owner = ? AND sha256 = ?", ((owner, sha256) for sha256 in gone))
        db.executemany("INSERT INTO refs VALUES (?, ?)", ((owner, sha256) for sha256 in wanted - before))
        db.executemany("INSERT OR IGNORE INTO candidates VALUES (?)", ((sha256,) for sha256 in gone))


def disown_replies(journal: Journal, run: str, step: int) -> None:
    """The replies of a step that is over: their payloads go, unless the new State kept them."""
    prefix = f"reply {run} {step} "
    between = (prefix, prefix[:-1] + "!")  # "!" follows " "
    with journal.commit() as db:
        db.execute("INSERT OR IGNORE INTO candidates SELECT sha256 FROM refs WHERE owner >= ? AND owner < ?", between)
        db.execute("DELETE FROM refs WHERE owner >= ? AND owner < ?", between)


def pin(journal: Journal, owner: str, digests: Iterable[bytes]) -> None:
    """Hold payloads until `unpin` or the end of this process; take hold before looking whether they are there."""
    with journal.holding() as db:
        db.executemany("INSERT OR IGNORE INTO pins VALUES (?, ?)", ((owner, sha256) for sha256 in digests))


def unpin(journal: Journal, owner: str) -> None:
    with journal.holding() as db:
        db.execute("INSERT OR IGNORE INTO candidates SELECT sha256 FROM pins WHERE owner = ?", (owner,))
        db.execute("DELETE FROM pins WHERE owner = ?", (owner,))


def put_pinned(journal: Journal, blobs: Blobs, owner: str, payload: Sendable, encoding: Encoding) -> pb.PayloadRef:
    """Write a payload, or find it there, so that no sweep takes it away."""
    while True:
        ref = blobs.put(payload, encoding)
        pin(journal, owner, [ref.sha256])
        if blobs.has(ref.sha256):  # else a sweep came between the two lines above
            return ref


def consider_all(journal: Journal, blobs: Blobs) -> None:
    """At the start: what a crash left without an owner goes at the first sweep."""
    with journal.holding() as db:
        db.executemany("INSERT OR IGNORE INTO candidates VALUES (?)", ((sha256,) for sha256 in blobs.digests()))


def sweep(journal: Journal, blobs: Blobs) -> int:
    """Remove the candidates that nobody refers to or holds; gives how many.

    The lock is given back between two files, so that no receipt waits for more than one. A disk that does not let go of
    a file ends the sweep, and no run: it takes room, and stays a candidate.
    """
    removed = 0
    for row in journal.rows("SELECT sha256 FROM candidates"):
        sha256 = (row["sha256"],)
        with journal.holding() as db:  # nobody takes hold between the look and the removal
            if db.execute("SELECT 1 FROM pins WHERE sha256 = ?", sha256).fetchone() is not None:
                continue
            if db.execute("SELECT 1 FROM refs WHERE sha256 = ?", sha256).fetchone() is None:
                try:
                    blobs.remove(bytes(row["sha256"]))
                except OSError as error:
                    log.warning("not_swept reason=%s", error)
                    return removed
                removed += 1
            db.execute("DELETE FROM candidates WHERE sha256 = ?", sha256)
    return removed
