"""Two agents with different tasks: one backbone pre-trained together, then a head each, in one run file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import backbone
from common import models, pb
from common.method import ModelSpec
from tests.processes import PATIENCE_S, Federation, federation

RUN = """
[run]
method = "fedsimclr"
rounds = 2
[model]
name = "resnet10"
input = "16x16x3"
width = 4
stem = "small"
head = "agent"
[objective]
name = "simclr"
[optimiser]
name = "adamw"
lr = 0.001
batch = 16
[data]
split = "transductive"
labelled = 0.5
[agents]
min = 2
[evaluation]
every = 2
metrics = ["accuracy"]
[[stage]]
name = "ssl"
[[stage]]
name = "heads"
[stage.set]
"run.init_from" = "ssl"
"run.method" = "task_heads"
objective = {name = "cross_entropy"}
optimiser = {name = "adamw", lr = 0.05, epochs = 20, batch = 16}
"""


def write_task(path: Path, n_classes: int, n: int = 48) -> Path:
    """Coloured noise; the class is the hue."""
    rng = np.random.default_rng(n_classes)
    labels = np.arange(n) % n_classes
    x = rng.integers(0, 60, (n, 16, 16, 3))
    x += (rng.random((n_classes, 3)) * 190)[labels][:, None, None, :].astype(np.int64)
    np.savez(path, x=x.astype(np.uint8), y=labels, classes=np.array([f"{path.stem}-{c}" for c in range(n_classes)]))
    return path


def start_agents(fleet: Federation) -> None:
    for name, n_classes in (("flowers", 4), ("scenes", 2)):
        fleet.agent(name, write_task(fleet.folder / f"{name}.npz", n_classes))


@pytest.fixture
def fleet(tmp_path: Path):
    with federation(tmp_path) as running:
        running.server()
        yield running


@pytest.mark.slow
def test_one_backbone_and_a_head_for_each_task(fleet: Federation) -> None:
    start_agents(fleet)
    fleet.submit(RUN, "both")
    ssl, heads = fleet.finished("both.ssl"), fleet.finished("both.heads")
    assert {a.task: e.n for e in ssl.evaluations for a in e.agents for e in a.evaluations} == {
        "flowers": 24,
        "scenes": 24,
    }
    assert "knn_accuracy" in ssl.evaluations[-1].metrics
    found = {a.task: e for a in heads.evaluations[-1].agents for e in a.evaluations}
    for task, chance in (("flowers", 1 / 4), ("scenes", 1 / 2)):
        assert found[task].sums["accuracy"] / found[task].n > 1.5 * chance
    up = {agent.agent: agent.transfer.bytes_up for r in heads.rounds for agent in r.agents}
    assert max(up.values()) < 3000  # a frozen backbone and own heads: nothing but what it cost goes up
    told = fleet.operations().ShowRun(pb.ShowRunRequest(run="both.heads")).SerializeToString()
    assert b"flowers-3" not in told  # the server needs no labels' names to lead such a run


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_stage_one_ends_both_stages_in_the_same_state(
    fleet: Federation, tmp_path: Path
) -> None:
    text = RUN.replace("rounds = 2", "rounds = 4")
    start_agents(fleet)
    fleet.submit(text, "both")
    detail = fleet.wait("both.ssl", lambda d: len(d.rounds) >= 1)
    assert detail.summary.status == "running"
    fleet.programs["server"].kill()
    fleet.server()
    resumed = [fleet.finished(f"both.{stage}").summary.state_sha256 for stage in ("ssl", "heads")]
    assert [r.round for r in fleet.show("both.ssl").rounds] == [1, 2, 3, 4]
    calm_folder = tmp_path / "calm"
    calm_folder.mkdir()
    with federation(calm_folder) as calm:
        calm.server()
        start_agents(calm)
        calm.submit(text, "both")
        assert [calm.finished(f"both.{stage}").summary.state_sha256 for stage in ("ssl", "heads")] == resumed


HEADS = """
{stage}
[agents]
min = 2
[optimiser]
name = "adamw"
lr = 0.05
epochs = 20
batch = 16
[data]
split = "transductive"
labelled = 0.5
[evaluation]
every = 1
metrics = ["accuracy"]
"""


@pytest.mark.slow
def test_stage_two_where_nobody_has_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    options = {"width": 4, "input": "16x16x3", "stem": "small"}
    np.savez(
        tmp_path / "weights.npz", **models.load(ModelSpec("resnet10", options), 0).initial(np.random.default_rng(0))
    )
    words = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    exported = [str(tmp_path / "weights.npz"), str(tmp_path / "backbone.npz"), "--model", "resnet10"]
    assert backbone.main([*exported, *words]) == 0
    stage = capsys.readouterr().out.replace("[run]", "[run]\nrounds = 2", 1)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(torch=None, torchvision=None)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"))
    with federation(tmp_path) as fleet:
        fleet.server()
        fleet.operations()
        start_agents(fleet)
        (tmp_path / "heads.toml").write_text(HEADS.format(stage=stage))
        submit = [sys.executable, "-m", "server", "submit", str(tmp_path / "heads.toml"), "--name", "heads"]
        subprocess.run([*submit, "--state-dir", str(fleet.state)], check=True, timeout=PATIENCE_S)
        last = fleet.finished("heads").evaluations[-1]
    found = {a.task: e for a in last.agents for e in a.evaluations}
    for task, chance in (("flowers", 1 / 4), ("scenes", 1 / 2)):
        assert found[task].sums["accuracy"] / found[task].n > 1.5 * chance
