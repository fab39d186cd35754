"""What a process that works on tasks keeps from one to the next, so that nothing is read or loaded twice."""

from collections import OrderedDict

from common import pb, runfile
from common.blobs import Blobs
from common.errors import RemoteFault
from common.payloads import Blob
from common.runfile import Run
from edge_client.site import Embeddings

MAX_RUNS = 16


class Workplace:
    """Payloads, runs read, features; `is_warm` once a task has been worked on here."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.embeddings = Embeddings()
        self.is_warm = False
        self._runs: OrderedDict[bytes, Run] = OrderedDict()

    def run_of(self, offer: pb.Offer) -> Run:
        """The run of an offer, read once."""
        digest = offer.run.sha256
        if digest not in self._runs:
            blob = self.blobs.open(offer.run, where=f"run {offer.key.run}")
            if not isinstance(blob, Blob):
                raise RemoteFault(f"run {offer.key.run}: expected a run as a blob, got {type(blob).__name__}")
            self._runs[digest] = runfile.from_blob(blob)
            if len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)
        self._runs.move_to_end(digest)
        return self._runs[digest]
