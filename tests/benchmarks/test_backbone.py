"""`python -m benchmarks.backbone`: what it writes can be run, and what it cannot export it says in one sentence."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from benchmarks import backbone
from common import models
from common.errors import EXIT_CONFIG, EXIT_DATA
from common.method import ModelSpec

SMALL = ("--model", "resnet10", "--option", "width=4", "--option", "input=16x16x3", "--option", "stem=small")


def write_weights(path: Path, width: int = 4) -> Path:
    spec = ModelSpec("resnet10", {"width": width, "input": "16x16x3", "stem": "small"})
    np.savez(path, **models.load(spec, 0).initial(np.random.default_rng(0)))
    return path


def test_what_is_printed_is_the_second_stage_of_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "backbone.npz"
    assert backbone.main([str(write_weights(tmp_path / "weights.npz")), str(to), *SMALL]) == 0
    said = tomllib.loads(capsys.readouterr().out)
    assert (said["run"], said["model"]["dim"]) == ({"method": "task_heads", "init": str(to)}, 32)
    options = {key: value for key, value in said["model"].items() if key not in ("name", "head")}
    spec = models.load(ModelSpec(said["model"]["name"], options), 0).parameters()
    with np.load(to) as arrays:
        assert arrays["graph"].shape == spec["graph"].shape
        assert arrays["graph"].tobytes() == to.with_suffix(".onnx").read_bytes()


@pytest.mark.parametrize(
    ("weights", "options", "code", "text"),
    [
        ("wide", SMALL, EXIT_CONFIG, "tensor 'conv1.weight' must be [4, 3, 3, 3], got [8, 3, 3, 3]"),
        ("none", SMALL, EXIT_DATA, "cannot read weights"),
        ("good", ("--model", "resnet11"), EXIT_CONFIG, "did you mean 'resnet1"),
        ("good", ("--model", "resnet10", "--option", "width"), EXIT_CONFIG, "--option takes NAME=VALUE"),
    ],
)
def test_what_cannot_be_exported_is_said(
    weights: str, options: tuple[str, ...], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_weights(tmp_path / "good.npz")
    write_weights(tmp_path / "wide.npz", width=8)
    to = tmp_path / "out.npz"
    assert backbone.main([str(tmp_path / f"{weights}.npz"), str(to), *options]) == code
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
    assert not to.exists()
