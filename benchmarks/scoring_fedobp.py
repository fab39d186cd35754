"""What FedOBP's scoring costs the server: time and memory for models that lie on its disk, a few agents and many.

Each agent's last upload is a file; it is mapped, checked against its digest, scored against the common model and let
go, as `plan` does it.
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import host, results
from common import earlier, entries, files, models, pb, saliency, seeds
from common.blobs import Blobs
from common.earlier import Earlier
from common.meter import Meter
from common.method import ModelSpec
from common.payloads import Weights
from common.store import AgentStore
from common.wire import records

MODEL = ModelSpec("fedavg_cnn", {"input": "28x28x1"})
QS = (0.9999, 0.997, 0.99, 0.5)
AGENTS = (10, 100)
DRIFT = 0.01


@dataclass(frozen=True)
class Timed:
    """Milliseconds an agent (median, and of the slowest), and how far the process's memory rose, mapped files too."""

    q: float
    n_agents: int
    median_ms: float
    slowest_ms: float
    rss_peak_delta_bytes: int
    values_bytes: int
    bits_bytes: int


@dataclass(frozen=True)
class Scoring:
    git: str
    cpu: str
    n_parameters: int
    dense_bytes: int
    timed: tuple[Timed, ...]


def run(folder: Path) -> Scoring:
    found = measured()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results.as_json(found), indent=1, allow_nan=False) + "\n"
    files.write_durably(folder / "fedobp_scoring.json", [text.encode()])
    return found


def measured() -> Scoring:
    model = models.load(MODEL, 10)
    base = model.initial(seeds.generator(1, "base"))
    names = saliency.scored_names(model.parameters(), ())
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder), durable=False)
        stores = {n: _store(blobs, base, n) for n in AGENTS}
        timed = tuple(_timed(q, stores[n], n, base, names) for n in AGENTS for q in QS)
    n = sum(base[name].size for name in names)
    return Scoring(host.commit(), str(host.facts().get("cpu", "")), n, base.n_bytes, timed)


def _store(blobs: Blobs, base: Weights, n_agents: int) -> AgentStore[Earlier]:
    """So many uploads, written once and read back, so that each is a memory map when it is asked for."""
    store: AgentStore[Earlier] = AgentStore()
    for i in range(n_agents):
        rng = np.random.default_rng(i)
        moved = {name: array + rng.normal(0, DRIFT, array.shape).astype(np.float32) for name, array in base.items()}
        store = store.kept(f"{i:03}", _through(blobs, Earlier(Weights(moved), 0, None)))
    return _through_store(blobs, store)


def _through(blobs: Blobs, value: Earlier) -> Earlier:
    record = records.encode(value, blobs.put)
    found: Earlier = records.decode(Earlier, record, lambda ref, _: blobs.open(ref), where="scoring")
    return found


def _through_store(blobs: Blobs, store: AgentStore[Earlier]) -> AgentStore[Earlier]:
    @dataclass(frozen=True)
    class Holder:
        store: AgentStore[Earlier]

    record: pb.Record = records.encode(Holder(store), blobs.put)
    holder: Holder = records.decode(Holder, record, lambda ref, _: blobs.open(ref, whole=True), where="scoring")
    return holder.store


def _timed(q: float, store: AgentStore[Earlier], n_agents: int, base: Weights, names: tuple[str, ...]) -> Timed:
    rule = saliency.Rule("obd", q, 0.0, "none")
    spent, sizes, meter = [], (0, 0), Meter()
    gc.collect()
    with meter.measuring() as whole:
        for chosen, seconds in _chosen(rule, store, base, names):
            spent.append(1e3 * seconds)
            sizes = entries.values_bytes(chosen.bits, "float32"), entries.mask_bytes(chosen.bits)
    grown = whole.rss_peak_delta_bytes
    return Timed(q, n_agents, round(statistics.median(spent), 3), round(max(spent), 3), grown, *sizes)


def _chosen(
    rule: saliency.Rule, store: AgentStore[Earlier], base: Weights, names: tuple[str, ...]
) -> Iterator[tuple[saliency.Chosen, float]]:
    for agent in store:
        begin = time.perf_counter()
        found = earlier.choose(rule, store, agent, base, names, else_from=None)
        if found is not None:
            yield found[1], time.perf_counter() - begin
