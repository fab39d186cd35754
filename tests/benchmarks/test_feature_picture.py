"""A run in memory, and the picture of its agents' features."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import feature_picture, in_memory, prototype_cuts, prototype_leaks
from common import encoders, runfile
from common.errors import ConfigError, UnknownName
from edge_client import image_tower

RUN = """
[run]
method = "proto_prompt"
rounds = 2
[model]
name = "prompted"
encoder = "tiny"
context = 2
[optimiser]
name = "adamw"
lr = 0.05
[data]
name = "digits"
n_agents = 3
n_classes = 4
limit = 300
[[row]]
label = "ours"
[[row]]
label = "prompts only"
set = {"method.adapter" = false}
"""


@pytest.fixture(autouse=True)
def tower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def opened(name: str) -> Any:
        import torch

        def features(pixels: Any, kind: str) -> Any:
            with torch.no_grad():
                return encoders.load(name).image_tower()(torch.from_numpy(pixels))[kind == "dense"].numpy()

        return features

    monkeypatch.setattr(image_tower, "opened", opened)
    monkeypatch.setattr(image_tower, "close", lambda: None)
    monkeypatch.setenv("EDGEFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEFED_THREADS", "1")


def test_a_run_in_memory_trains_and_is_the_same_again() -> None:
    file = in_memory.row(runfile.parse(RUN, "test"), "ours")
    fleets = [in_memory.fleet(file).rounds(2) for _ in range(2)]
    first, second = (fleet.state.prompt.context for fleet in fleets)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, in_memory.fleet(file).state.prompt.context)
    assert fleets[0].agents["01"].task.prototypes is not None
    with pytest.raises(UnknownName, match="unknown row 'our'; did you mean 'ours'"):
        in_memory.row(runfile.parse(RUN, "test"), "our")


def test_the_picture_and_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    path, found = feature_picture.draw(str(tmp_path / "run.toml"), "ours", tmp_path / "f.png", {})
    assert path.stat().st_size > 10_000
    kept = json.loads((tmp_path / "f.json").read_text())
    assert kept["trained"] == {"silhouette": found.trained.silhouette, "neighbours": found.trained.neighbours}
    assert found.static != found.trained
    with pytest.raises(ConfigError, match="its agents train no image features"):
        feature_picture.draw(str(tmp_path / "run.toml"), "prompts only", tmp_path / "g.png", {})


def test_numbers_by_hand() -> None:
    apart = np.array([[1, 0], [1, 0.01], [1, 0.02], [0, 1], [0.01, 1], [0.02, 1]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    far = feature_picture.numbers(np.repeat(apart, 3, axis=0), np.repeat(labels, 3))
    assert far.neighbours == 1.0
    assert far.silhouette > 0.9
    mixed = feature_picture.numbers(np.repeat(apart, 3, axis=0), np.tile([0, 1], 9))
    assert mixed.silhouette < 0.1


def test_means_that_a_run_sent_and_what_they_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = prototype_cuts.trained(in_memory.row(runfile.parse(RUN, "test"), "ours"))
    assert [len(sent) for sent in run.rounds] == [3, 3]
    first, last = (np.asarray(sent[1].vectors, np.float32) for sent in run.rounds)
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), 1, rtol=1e-5)
    assert np.abs(first - last).max() > 1e-4
    (tmp_path / "run.toml").write_text(RUN)
    assert prototype_leaks.main([str(tmp_path / "run.toml"), "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "prompts_leaks.json").read_text())
    assert [leak["noise"] for leak in kept["leaks"]] == list(prototype_leaks.NOISES)
    assert "noise 0.4: found" in capsys.readouterr().out
