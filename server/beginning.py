"""How a run begins: enough agents are ready, the class list is settled, the first State is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import pb, run_taxonomy, runfile
from common.blobs import Blobs
from common.errors import ConfigError, LocalFault
from common.payloads import Blob
from server import initial, retention
from server.journal import Journal
from server.ledger import Ledger
from server.preparing import Preparing

DrawFirst = Callable[[Path, initial.Request, Callable[[], None]], pb.Record]


@dataclass(frozen=True)
class Loaded:
    """A run as the journal has it, and as agents fetch it; settled once its class list is."""

    run: runfile.Run
    ref: pb.PayloadRef
    is_settled: bool


def load(journal: Journal, blobs: Blobs, name: str) -> Loaded:
    row = journal.row("SELECT blob, settled FROM runs WHERE run = ?", name)
    if row is None:
        raise LocalFault(f"run {name} is not in the journal")
    return _loaded(journal, blobs, Blob(runfile.MEDIA_TYPE, row["blob"]), is_settled=bool(row["settled"]))


def settle(journal: Journal, blobs: Blobs, loaded: Loaded, preparing: Preparing) -> Loaded:
    """The run with the class list of the agents that are ready.

    Raises:
        ConfigError: they differ, and the head is common.
    """
    file, name = loaded.run.file, loaded.run.name
    blob = runfile.to_blob(file, name, preparing.settle_classes(), run_taxonomy.edges(file))
    journal.write("UPDATE runs SET blob = ?, settled = 1 WHERE run = ?", bytes(blob.data), name)
    settled = _loaded(journal, blobs, blob, is_settled=True)
    preparing.blob = settled.ref
    return settled


def first_request(journal: Journal, loaded: Loaded) -> initial.Request:
    """What the first State is drawn from: the run, an earlier run's result, weights that came with the run file."""
    run, name = loaded.run.file.run, loaded.run.name
    start: dict[str, pb.PayloadRef] = {}
    row = journal.row("SELECT init_from FROM runs WHERE run = ?", name)
    if row is not None and row["init_from"]:
        source = row["init_from"]
        start = initial.mapped(Ledger(journal, source).result(), run.init_map, source)
    weights = None
    if run.init != "seed":
        found = journal.row("SELECT ref FROM files WHERE run = ? AND name = ?", name, run.init)
        if found is None:
            raise ConfigError(f"[run] init: {run.init} was not sent with the run")
        weights = pb.PayloadRef.FromString(found["ref"])
    return initial.Request(loaded.ref, start, weights)


def hold(journal: Journal, blobs: Blobs, owner: str, record: pb.Record) -> None:
    """Payloads that another process has written: none may go before the checkpoint owns it."""
    digests = [ref.sha256 for ref in record.payloads]
    retention.pin(journal, owner, digests)
    if not all(blobs.has(sha256) for sha256 in digests):
        raise LocalFault("a payload of the first state has vanished; it is drawn again")


def _loaded(journal: Journal, blobs: Blobs, blob: Blob, *, is_settled: bool) -> Loaded:
    run = runfile.from_blob(blob)
    ref = retention.put_pinned(journal, blobs, f"run {run.name}", blob, "exact")  # put again after a restart
    return Loaded(run, ref, is_settled)
