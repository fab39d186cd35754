"""The empty round: what a round costs when there is nothing to train and next to nothing to send."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import fleet
from benchmarks.fleet import Federation
from benchmarks.overhead import bare, counted
from common import pb
from common.errors import LocalFault
from common.seeds import generator

WARM = 20  # rounds left out at the start
N_FEATURES, N_CLASSES = 99, 10  # a linear model of 1,000 float32
RUN = """
[run]
method = "fedavg"
rounds = {rounds}
[model]
name = "linear"
input = "{n_features}"
[optimiser]
epochs = {epochs}
[agents]
min = 2
[evaluation]
every = 0
"""


@dataclass(frozen=True)
class EmptyRound:
    """Seconds, medians. `stepped` is a round in which weights change, so that 4 kB travel each way."""

    rounds: int
    p50_s: float
    p99_s: float
    stepped_p50_s: float
    fsyncs_per_round: float
    ping_p50_s: float
    fsync_p50_s: float


def measure(folder: Path, *, rounds: int) -> EmptyRound:
    folder.mkdir(parents=True, exist_ok=True)
    data = _data(folder / "noise.npz")
    fsync_s = [bare.fsync_p50_s(folder)]  # before and after: a disk has its moods
    with _two_agents(folder, data) as federation:
        empty = _round_seconds(federation, "empty", rounds, epochs=0)
        stepped = _round_seconds(federation, "stepped", rounds, epochs=1)
    with bare.served(folder) as channel:
        ping_s = bare.ping_p50_s(channel)
    fsync_s.append(bare.fsync_p50_s(folder))
    fsyncs = _fsyncs_per_round(folder, data, rounds)
    p50, p99 = (float(q) for q in np.quantile(empty, [0.5, 0.99]))
    return EmptyRound(rounds, p50, p99, statistics.median(stepped), fsyncs, ping_s, statistics.mean(fsync_s))


def watch_to_end(federation: Federation, name: str, toml: str) -> Iterator[tuple[float, pb.RunEvent]]:
    """Submit, and give every event with the time at which it came.

    Raises:
        LocalFault: the run did not end well.
    """
    federation.operations.SubmitRun(pb.SubmitRunRequest(run_toml=toml, name=name))
    for event in federation.operations.WatchRun(pb.WatchRunRequest(run=name)):
        yield time.monotonic(), event
        if event.summary.status in ("failed", "stopped"):
            raise LocalFault(f"run {name} {event.summary.status}: {event.summary.reason}")
        if event.summary.status == "done":
            return


def _round_seconds(federation: Federation, name: str, rounds: int, *, epochs: int) -> list[float]:
    """Between the reports of successive rounds: everything counts, the report too."""
    toml = RUN.format(rounds=rounds, epochs=epochs, n_features=N_FEATURES)
    ended = [at for at, event in watch_to_end(federation, name, toml) if event.HasField("round")]
    return [later - earlier for earlier, later in zip(ended[WARM:-1], ended[WARM + 1 :], strict=True)]


def _fsyncs_per_round(folder: Path, data: Path, rounds: int) -> float:
    """Of the server and both agents together, in a separate run under the counter."""
    with tempfile.TemporaryDirectory(dir=folder) as counts:
        file = Path(counts) / "fsyncs"
        program = ("-m", "benchmarks.overhead.counted", str(file))
        with _two_agents(folder, data, (*program, "server"), (*program, "edge_client")) as federation:
            _round_seconds(federation, "counted", rounds, epochs=0)
        return counted.total(file) / rounds


@contextmanager
def _two_agents(
    folder: Path, data: Path, server: tuple[str, ...] = fleet.SERVER, agent: tuple[str, ...] = fleet.AGENT
) -> Iterator[Federation]:
    with fleet.server(folder, program=server) as federation:
        flags = ("--data", str(data))
        with fleet.agents(federation, folder, 2, n_processes=2, flags=flags, program=agent):
            yield federation


def _data(path: Path) -> Path:
    rng = generator(0, "overhead")
    x = rng.random((32, N_FEATURES), dtype=np.float32)
    np.savez(path, x=x, y=np.arange(32) % N_CLASSES)
    return path
