"""Memory of the server while 2, 8 and 32 agents upload a model at the same moment: it must not grow with them."""

import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fleet
from benchmarks.overhead import memory_of
from benchmarks.overhead.empty_round import watch_to_end
from benchmarks.overhead.idle import Talker, talking

N_CLASSES = 10
RUN = """
[run]
method = "fedavg"
rounds = 2
[model]
name = "linear"
input = "{n_features}"
[agents]
min = {n}
[evaluation]
every = 0
"""


@dataclass(frozen=True)
class ServerMemory:
    n_agents: int
    model_bytes: int
    rss_before_bytes: int
    vm_hwm_bytes: int
    rss_anon_bytes: int
    seconds: float  # from the moment at which all begin to upload to the last receipt, of the second round


def measure(folder: Path, n_agents: int, *, model_bytes: int) -> ServerMemory:
    folder.mkdir(parents=True, exist_ok=True)
    n_features = model_bytes // 4 // N_CLASSES - 1
    blobs = tempfile.mkdtemp(prefix="crowd-", dir=folder)
    try:
        with fleet.server(folder) as federation:
            own = ("--server", federation.address, "--hosts", str(n_agents), "--folder", blobs)
            crowd = ("benchmarks.overhead.crowd", *own, "--features", str(n_features))
            with talking(*crowd, errors=folder / "crowd.log") as hosts:
                for _ in range(n_agents):
                    hosts.next("joined")
                pid = federation.server.popen.pid
                before = memory_of.status(pid)["VmRSS"]
                with memory_of.peaks(pid) as peaks:
                    uploads = _Uploads(hosts, 2 * n_agents)
                    list(watch_to_end(federation, "uploads", RUN.format(n=n_agents, n_features=n_features)))
                seconds = uploads.slowest_of_last(n_agents)
    finally:
        shutil.rmtree(blobs)
    return ServerMemory(n_agents, model_bytes, before, peaks.vm_hwm_bytes, peaks.rss_anon_bytes, seconds)


class _Uploads:
    """Collects how long each upload took, while the run goes on."""

    def __init__(self, hosts: Talker, n: int) -> None:
        self._seconds: list[float] = []
        self._thread = threading.Thread(target=self._collect, args=(hosts, n), daemon=True)
        self._thread.start()

    def _collect(self, hosts: Talker, n: int) -> None:
        for _ in range(n):
            self._seconds.append(hosts.next("uploaded").at_ns / 1e9)

    def slowest_of_last(self, n: int) -> float:
        self._thread.join(timeout=10.0)
        return max(self._seconds[-n:])
