"""A reply that the server cannot take: told once, dropped by the agent, and no step waits for it."""

from pathlib import Path

from tests.processes import federation, write_data

RUN = """
[run]
method = "fedavg"
rounds = 1
[model]
name = "linear"
input = "6"
[optimiser]
lr = 1e38
epochs = 3
[agents]
min = 1
deadline_s = 600
[data]
classes = ["0", "1", "2"]
[evaluation]
every = 0
"""


def test_weights_that_became_nan_are_refused_once_and_end_the_step_long_before_its_deadline(tmp_path: Path) -> None:
    with federation(tmp_path) as fleet:
        fleet.server()
        agent = fleet.agent("a", write_data(tmp_path / "a.npz", 30, seed=1))
        fleet.submit(RUN, "r")
        detail = fleet.finished("r")
        (report,) = detail.rounds[0].agents
        told = agent.text()
    assert report.outcome == "failed", told
    assert "run r step 0 agent a (work)" in report.reason
    assert "classifier.weight" in report.reason
    assert told.count("reply_refused") == 1
    assert "submit_failed" not in told
