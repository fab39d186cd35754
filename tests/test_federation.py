"""Whole federations of real processes on loopback, against what a plain loop computes."""

import io
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from common import models, pb, seeds
from common.blobs import Blobs
from common.method import ModelSpec, Training
from common.methods import local
from common.payloads import Weights
from common.samples import from_arrays
from common.wire import canonical, records
from edge_client import learners
from edge_client.memory import Archive
from tests.methods import plain_loop
from tests.processes import Federation, federation, write_data

AGENTS = {"a": 40, "b": 25, "c": 60, "d": 33}
MODEL = ModelSpec("mlp", {"input": "6", "hidden": 8})
TRAINING = Training(lr=0.1, momentum=0.5, batch=8, epochs=2)
RUN = """
[run]
method = "{method}"
rounds = 5
seed = 11
init = "first.npz"
[model]
name = "mlp"
input = "6"
hidden = 8
[optimiser]
lr = 0.1
momentum = 0.5
batch = 8
epochs = 2
[agents]
min = 4
[data]
classes = ["0", "1", "2"]
[evaluation]
every = 5
[method]
{settings}
"""


def first_weights() -> Weights:
    return models.load(MODEL, 3).initial(seeds.generator(1, "test"))


def as_npz(weights: Weights) -> bytes:
    held = io.BytesIO()
    np.savez(held, **dict(weights))
    return held.getvalue()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("federation")
    with federation(folder) as fleet:
        fleet.server()
        for i, (name, n) in enumerate(AGENTS.items()):
            fleet.agent(name, write_data(folder / f"{name}.npz", n, seed=i + 1))
        for method, settings in (("fedavg", ""), ("fedprox", "mu = 0.3"), ("local", "")):
            text = RUN.format(method=method, settings=settings)
            fleet.submit(text, method, **{"first.npz": as_npz(first_weights())})
        yield fleet


def plain(folder: Path, run_seed: int = 11) -> plain_loop.Federation:
    samples = {}
    for name in AGENTS:
        data = np.load(folder / f"{name}.npz")
        samples[name] = from_arrays(data["x"], data["y"], 3)
    learner = learners.make("numpy", MODEL, 3)
    return plain_loop.Federation(
        learner, samples, TRAINING, lambda number, agent: seeds.generator(run_seed, number, agent, "work")
    )


def exported(fleet: Federation, run: str) -> Weights:
    """The payload "weights" of the run's result, through the operator's stream."""
    parts = [part for part in fleet.operations().ExportRun(pb.ExportRunRequest(run=run)) if part.name == "weights"]
    whole = b"".join(part.data for part in parts)
    return canonical.decode(whole)


@pytest.mark.parametrize(("method", "mu"), [("fedavg", 0.0), ("fedprox", 0.3)])
def test_five_rounds_of_real_processes_equal_a_plain_loop(running: Federation, method: str, mu: float):
    detail = running.finished(method)
    assert [len(r.agents) for r in detail.rounds] == [4] * 5
    expected = plain_loop.fedprox(plain(running.folder), first_weights(), 5, mu=mu)
    got = exported(running, method)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, atol=1e-6, rtol=0)


def test_five_rounds_of_local_training_leave_each_agent_its_own_model(running: Federation):
    running.finished("local")
    with sqlite3.connect(running.state / "journal.sqlite") as journal:
        (server_id,) = journal.execute("SELECT id FROM server").fetchone()
    for name, expected in plain_loop.local(plain(running.folder), first_weights(), 5).items():
        home = running.folder / name
        memories = Archive(home / "memory").of(server_id)
        pending = memories.pending("local", name)
        record = pending.memory if pending is not None else memories.held("local", name).memory
        blobs = Blobs(home / "blobs")
        got = records.decode(local.Memory, record, lambda ref, _, blobs=blobs: blobs.open(ref), where=name).weights
        for tensor, array in expected.items():
            np.testing.assert_allclose(got[tensor], array, atol=1e-6, rtol=0)


def test_every_task_was_metered(running: Federation):
    for report in running.finished("fedavg").rounds:
        for agent in report.agents:
            assert agent.report.seconds["train"] > 0
            assert agent.report.n_samples == AGENTS[agent.agent]  # each counted once, whatever the epochs
            assert agent.transfer.bytes_up > 4 * sum(a.size for a in first_weights().values())
            assert not agent.transfer_missing
