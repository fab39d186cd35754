"""What a memory budget is for, in real child processes; that it is enforced is tested with the executor."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import pb
from common.blobs import Blobs
from edge_client.executor import Executor, make_executor
from edge_client.job import AgentConfig, Finished, PreparedData
from tests.edge_client import pets

MIB = 1 << 20


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Executor]:
    made = make_executor(tmp_path / "blobs", workers=1)
    yield made
    made.close()


def test_opening_the_named_data_set_of_a_run_is_no_part_of_a_task_s_budget(
    child: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark's data set is everybody's, and large; the agent's own part of it is what its task reads."""
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    n = 48 * MIB // (4 * pets.DIM)
    y = np.arange(n) % 2
    np.savez_compressed(  # an archive that cannot be mapped, and is held in memory
        tmp_path / "large.npz", x=np.zeros((n, pets.DIM), np.float32), y=y, x_test=np.zeros((4, pets.DIM), np.float32),
        y_test=y[:4], classes=["cat", "owl"],
    )  # fmt: skip
    settings = {"data.name": "large", "data.shots": 4, "data.n_agents": 1, "evaluation.every": 0}
    for kind, answer in ((pb.PREPARE, PreparedData), (pb.WORK, Finished)):
        job = pets.job(Blobs(tmp_path / "blobs", durable=False), tmp_path, settings, kind=kind)
        job.offer.data.CopyFrom(pb.DataIndex(of=1))
        job = replace(job, agent=AgentConfig("a", named=True, learner="numpy"), memory_limit_bytes=16 * MIB)
        assert isinstance(outcome := child.run(job, lambda phase, fraction: None), answer), outcome
