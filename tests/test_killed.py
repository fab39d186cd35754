"""Programs killed in the middle of things: the final State is that of the undisturbed run, bit for bit."""

import time
from pathlib import Path

import pytest

from tests.processes import Federation, federation, write_data
from tests.relay import Relay, relay

RUN = """
[run]
method = "fedavg"
rounds = 4
seed = 5
[model]
name = "mlp"
input = "6"
hidden = {hidden}
[optimiser]
lr = 0.05
batch = 8
epochs = {epochs}
[agents]
min = 3
[data]
classes = ["0", "1", "2"]
[evaluation]
every = 4
"""
UPLOAD_BYTES = 60_000 * 10 * 4  # of the wide model: hidden x (6 + 1 + 3) floats, and three more


@pytest.fixture
def fleet(tmp_path: Path):
    with federation(tmp_path) as running:
        running.server()
        yield running


def start_agents(fleet: Federation, via: Relay | None = None) -> None:
    for i, name in enumerate("abc"):
        data = write_data(fleet.folder / f"{name}.npz", 30 + 10 * i, seed=i + 1)
        fleet.agent(name, data, via=via.port if via else 0)


def undisturbed(folder: Path, text: str) -> str:
    folder.mkdir()
    with federation(folder) as calm:
        calm.server()
        start_agents(calm)
        calm.submit(text, "run")
        return calm.finished("run").summary.state_sha256


@pytest.mark.slow
def test_server_killed_three_times_in_the_middle_of_uploads(fleet: Federation, tmp_path: Path):
    text = RUN.format(hidden=60_000, epochs=1)
    with relay(fleet.port, bytes_per_s=6e6) as between:
        start_agents(fleet, between)
        fleet.submit(text, "run")
        cut_at = []
        for wanted in (0, 1, 2):  # rounds that are over when the server dies
            detail = fleet.wait("run", lambda d, n=wanted: len(d.rounds) > n)
            assert detail.summary.status == "running"
            between.wait_for_upload(UPLOAD_BYTES // 2)
            fleet.programs["server"].kill()
            cut_at.append(list(fleet.state.rglob("*partial*")))
            fleet.server()
        between.bytes_per_s = 0
        got = fleet.finished("run").summary.state_sha256
    assert any(cut_at), "no upload was under way when the server was killed"
    assert got == undisturbed(tmp_path / "calm", text)


@pytest.mark.slow
def test_agent_killed_while_it_trains(fleet: Federation, tmp_path: Path):
    text = RUN.format(hidden=64, epochs=400)
    start_agents(fleet)
    fleet.submit(text, "run")
    fleet.wait("run", lambda d: len(d.rounds) >= 1)
    time.sleep(0.05)  # somewhere in the 400 epochs of the second round
    fleet.programs["b"].kill()
    fleet.agent("b", fleet.folder / "b.npz")
    got = fleet.finished("run").summary.state_sha256
    assert got == undisturbed(tmp_path / "calm", text)
