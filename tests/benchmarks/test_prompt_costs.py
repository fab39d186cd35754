"""What a frozen encoder costs, measured on the tiny one: what is counted, not how fast this machine is."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from benchmarks import prompt_costs, tower_memory
from common import encoders
from edge_client import image_tower
from edge_client.image_tower import Kind

RUN = """
[run]
method = "proto_prompt"
rounds = 1
[model]
name = "prompted"
encoder = "tiny"
context = 2
[data]
name = "digits"
n_agents = 3
n_classes = 4
limit = 90
[[row]]
label = "ours"
"""


class Tower:
    def __init__(self) -> None:
        self.images = 0

    def opened(self, encoder: str) -> Any:
        return self

    def __call__(self, pixels: Any, kind: Kind) -> Any:
        import torch

        self.images += len(pixels)
        with torch.no_grad():
            found = encoders.load("tiny").image_tower()(torch.from_numpy(pixels))
        return found[kind == "dense"].numpy()


def test_all_images_pass_the_tower_once_and_texts_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tower = Tower()
    for name, value in (("opened", tower.opened), ("close", lambda: None), ("tower_file", lambda encoder: None)):
        monkeypatch.setattr(image_tower, name, value)
    monkeypatch.setattr(prompt_costs, "_tower", lambda kind, encoder: prompt_costs.Tower(1000, 9.0))
    monkeypatch.setattr(prompt_costs, "N_STEPS", 1)
    monkeypatch.setenv("EDGEFED_CACHE", str(tmp_path / "cache"))
    for name in prompt_costs.THREADS:
        monkeypatch.setenv(name, "1")
    (tmp_path / "run.toml").write_text(RUN)
    assert prompt_costs.main([str(tmp_path / "run.toml"), "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "prompts_costs.json").read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["images"]["n_images"] == tower.images > 90
    assert not (tmp_path / "cache").exists()  # a user's cache is left alone
    assert found["step"]["n_tokens"] == 1 + 2 + 3  # start, the context, name, ".", end
    assert found["step"]["n_positions"] == encoders.facts("tiny").n_positions
    sizes = {"prompt_bytes": 4 * 2 * 12, "mean_bytes": 4 * 16, "n_classes": 4}
    assert {name: found["sizes"][name] for name in sizes} == sizes


def test_an_experiment_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert prompt_costs.main(["nothing_like_this.toml"]) != 0
    assert "cannot read experiment" in capsys.readouterr().err


def test_numbers_of_a_weights_file_by_hand(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F16", "shape": [3, 4], "data_offsets": [0, 24]},
            "b": {"dtype": "F32", "shape": [], "data_offsets": [24, 28]},
            "ids": {"dtype": "I64", "shape": [7], "data_offsets": [28, 84]},
        }
    ).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert prompt_costs.n_parameters(path) == 13


def test_a_process_tells_its_peak_and_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert tower_memory.main(["torch", "tiny", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["peak_bytes"] > 10_000_000
    assert found["images_per_cpu_s"] > 0
