"""`edge-agent predict` on the state folders of a real federation: its classes are those that the evaluation counted."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common import pb
from common.blobs import Blobs
from common.payloads import Weights
from common.samples import ArraySource
from edge_client import predict
from edge_client.__main__ import main
from edge_client.data.inputs import open_inputs
from edge_client.keep import Keep
from edge_client.memory import Archive
from edge_client.offers import Offers
from tests.processes import Federation, federation, write_data

RUN = """
[run]
method = "{method}"
rounds = 3
[model]
name = "mlp"
input = "6"
hidden = 8
head = "{head}"
[optimiser]
lr = 0.1
batch = 8
[agents]
min = 2
[data]
{classes}
[evaluation]
every = {every}
when = ["merged"]
"""
AGENTS = {"a": 40, "b": 25}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation that is over: its programs have ended, its folders are there."""
    with federation(tmp_path_factory.mktemp("federation")) as fleet:
        fleet.server()
        for i, (name, n) in enumerate(AGENTS.items()):
            fleet.agent(name, write_data(fleet.folder / f"{name}.npz", n, seed=i + 1))
        names = 'classes = ["0", "1", "2"]'
        for method, head, classes, every in (("fedavg", "run", names, 3), ("fedper", "agent", "", 3)):
            fleet.submit(RUN.format(method=method, head=head, classes=classes, every=every), method)
            fleet.finished(method)
        fleet.submit(RUN.format(method="local", head="run", classes=names, every=0), "unmeasured")
        fleet.finished("unmeasured")
        fleet.evaluated = {run: correct_of(fleet, run) for run in ("fedavg", "fedper")}  # type: ignore[attr-defined]
    return fleet


def correct_of(fleet: Federation, run: str) -> dict[str, float]:
    (report,) = fleet.show(run).evaluations
    return {agent.agent: agent.evaluations[0].sums["accuracy"] for agent in report.agents}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def predicted(left: Federation, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def by(agent: str, *arguments: str) -> Said:
        state = () if "--state-dir" in arguments else ("--state-dir", str(left.folder / agent))
        code = main(["predict", "--name", agent, *state, *arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return by


def as_inputs(fleet: Federation, agent: str, folder: Path) -> tuple[Path, np.ndarray]:
    data = np.load(fleet.folder / f"{agent}.npz")
    np.savez(folder / "new.npz", x=data["x_test"])
    return folder / "new.npz", data["y_test"]


@pytest.mark.parametrize(("run", "model"), [("fedavg", "model"), ("fedper", "personal")])
@pytest.mark.parametrize("agent", AGENTS)
def test_predictions_are_those_of_the_model_that_was_evaluated(
    left: Federation, predicted: Callable[..., Said], run: str, model: str, agent: str, tmp_path: Path
) -> None:
    new, labels = as_inputs(left, agent, tmp_path)
    data = str(left.folder / f"{agent}.npz")
    said = predicted(agent, "--data", data, "--run", run, "--json", str(new), "--top", "2")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["run"], found["round"], found["agent"], found["reading"]) == (run, 3, agent, model)
    first = [int(one["classes"][0][0]) for one in found["predictions"]]
    assert np.count_nonzero(first == labels) == left.evaluated[run][agent]  # type: ignore[attr-defined]
    assert [one["input"] for one in found["predictions"]][:2] == [f"{new}[0]", f"{new}[1]"]
    for one in found["predictions"]:
        (_, best), (_, second) = one["classes"]
        assert 1 >= best >= second >= 0


def test_without_a_run_it_is_the_last_one_and_people_get_lines(
    left: Federation, predicted: Callable[..., Said], tmp_path: Path
) -> None:
    new, labels = as_inputs(left, "a", tmp_path)
    head, *lines = predicted("a", "--data", str(left.folder / "a.npz"), str(new)).out.splitlines()
    assert head == "run unmeasured, round 3, agent a: its own model"
    assert len(lines) == len(labels)
    assert lines[0].startswith(f"{new}[0]  ")
    assert lines[0].count(" %") == 3


def test_what_cannot_be_predicted(left: Federation, predicted: Callable[..., Said], tmp_path: Path) -> None:
    new, _ = as_inputs(left, "a", tmp_path)
    data = str(left.folder / "a.npz")
    np.savez(tmp_path / "flat.npz", x=np.zeros((2, 5), np.float32))
    np.savez(tmp_path / "bytes.npz", x=np.zeros((2, 6), np.uint8))
    (tmp_path / "a.png").write_bytes(b"no image")
    state, gone = str(tmp_path / "nothing"), tmp_path / "gone"
    shutil.copytree(left.folder / "a", gone)
    for digest in list(Blobs(gone / "blobs").digests()):
        Blobs(gone / "blobs").remove(digest)
    for arguments, code, text in (
        (("--data", data), 2, "predict what"),
        ((str(new),), 10, "give this agent its data with --data"),
        (("--data", f"x={data}", "--data", f"y={data}", str(new)), 10, "predict takes one agent, so one --data"),
        (
            ("--data", data, "--run", "typo", str(new)),
            13,
            "of run 'typo' .* here are unmeasured, fedper, fedavg",
        ),
        (("--data", data, "--state-dir", state, str(new)), 13, "its runs here are none yet"),
        (("--data", data, "--state-dir", str(gone), str(new)), 13, "is not whole on this device any more"),
        (("--data", data, str(tmp_path / "flat.npz")), 14, "expected 6 of float32, got 5 of float32"),
        (("--data", data, str(tmp_path / "bytes.npz")), 14, "expected 6 of float32, got 6 of uint8"),
        (("--data", data, str(tmp_path / "a.png")), 14, "vectors of 6, no images"),
        (("--data", data, str(new), str(new)), 14, "an .npz goes alone"),
        (("--data", data, str(tmp_path / "missing.npz")), 14, "missing.npz cannot be read"),
    ):
        said = predicted("a", *arguments)
        assert said.code == code, (arguments, said.err)
        assert len(said.err.splitlines()) == 1, said.err
        assert re.search(text, said.err), said.err


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    run = RUN.replace("[data]", '[data]\ntaxonomy = [["R","A"],["R","2"],["A","0"],["A","1"]]')
    with federation(tmp_path_factory.mktemp("experts")) as fleet:
        fleet.server()
        for i, (name, n) in enumerate(AGENTS.items()):
            fleet.agent(name, write_data(fleet.folder / f"{name}.npz", n, seed=i + 1))
        for name, every in (("measured", 3), ("unmeasured", 0)):
            text = run.format(method="hier_moe", head="run", classes='classes = ["0", "1", "2"]', every=every)
            fleet.submit(text, name)
            fleet.finished(name)
        fleet.submit(run.format(method="hier_moe", head="run", classes='classes = ["0", "1", "2"]', every=1), "longer")
        fleet.finished("longer")
    return fleet


@pytest.mark.parametrize(("run", "code"), [("measured", 0), ("longer", 0), ("unmeasured", 13)])
def test_experts_of_the_last_evaluation_decide_without_a_probability(
    experts: Federation, run: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task of training has one expert, which says no class: without an evaluation there is none to predict with."""
    new, labels = as_inputs(experts, "a", tmp_path)
    own = ["--name", "a", "--state-dir", str(experts.folder / "a"), "--data", str(experts.folder / "a.npz")]
    assert main(["predict", *own, "--run", run, "--json", str(new)]) == code
    said = capsys.readouterr()
    if code:
        assert "no model of run 'unmeasured'" in said.err
        return
    found = [one["classes"] for one in json.loads(said.out)["predictions"]]
    assert all(share is None for ((_, share),) in found)
    assert np.mean([int(name) for ((name, _),) in found] == labels) > 0.5


def test_votes_are_shares_as_they_are() -> None:
    assert predict._shares(np.array([[0.75, 0.25, 0.0]], np.float32)).tolist() == [[0.75, 0.25, 0.0]]
    assert predict._shares(np.array([[0.0, 0.0]], np.float32)).tolist() == [[0.5, 0.5]]


def test_files_belong_to_predict_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "a.png", "--data", "x"])
    assert ended.value.code == 2
    assert "files go with predict" in capsys.readouterr().err


def test_images_get_the_shape_and_scale_of_the_agents_own(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, grey in (("b/two.png", 200), ("one.png", 100)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.new("RGB", (9, 7), (grey,) * 3).save(tmp_path / name)
    like = ArraySource(np.zeros((1, 4, 5, 1), np.uint8), np.zeros(1, np.int64), mean=(0.5,), std=(0.25,))
    names, samples = open_inputs([tmp_path / "one.png", tmp_path / "b"], like, None)
    assert names == (str(tmp_path / "one.png"), str(tmp_path / "b" / "two.png"))
    assert samples.read().shape == (2, 4, 5, 1)
    assert samples.read()[:, 0, 0, 0].tolist() == [100, 200]
    assert (samples.source.mean, samples.source.std) == ((0.5,), (0.25,))
    assert open_inputs([tmp_path / "b"], like, (8, 8, 3))[1].read().shape == (1, 8, 8, 3)


def test_tasks_that_never_began_leave_nothing_behind_but_the_last_ones_payloads(tmp_path: Path) -> None:
    blobs, archive = Blobs(tmp_path / "blobs"), Archive(tmp_path / "memory")
    keep = Keep(blobs, archive, Offers())

    def offer(step: int) -> pb.Offer:
        ref = blobs.put(Weights({"w": np.full(9, step, np.float32)}))
        key = pb.TaskKey(run="r", agent="a", step=step)
        return pb.Offer(key=key, task=pb.Record(payloads=[ref]))

    begun = offer(0)
    keep.begin(begun)
    keep.remember("server", begun, None)
    keep.end()
    for step in range(1, 9):  # fetched, and then withdrawn
        keep.begin(offer(step))
        keep.end()
    keep._sweep()
    assert blobs.digests() == {ref.sha256 for one in (begun, offer(8)) for ref in one.task.payloads}


def test_the_last_tasks_come_latest_first_and_the_next_start_keeps_their_payloads(left: Federation) -> None:
    home = left.folder / "b"
    assert [last.offer.key.run for last in Archive(home / "memory").last_tasks()] == ["unmeasured", "fedper", "fedavg"]
    blobs = Blobs(home / "blobs")
    keep = Keep(blobs, Archive(home / "memory"), Offers())
    there = blobs.digests()
    keep._sweep()
    wanted = {ref.sha256 for last in Archive(home / "memory").last_tasks() for ref in last.offer.task.payloads}
    assert wanted
    assert wanted <= blobs.digests() <= there
