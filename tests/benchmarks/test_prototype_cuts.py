"""Class means in fewer bytes, by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import prototype_cuts
from benchmarks.prototype_cuts import Cut, Trained, eighths, low_rank, measured
from common.payloads import Prototypes


def means(ids: list[int], vectors: Any) -> Prototypes:
    return Prototypes(np.array(ids), np.ones(len(ids), np.int64), np.array(vectors, np.float32))


def test_bytes_of_shorter_forms_and_what_is_left_of_the_numbers() -> None:
    vectors = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    near, n_bytes = eighths(vectors)
    assert n_bytes == 10 * 64 + 10 * 4
    assert np.abs(near - vectors).max() <= np.abs(vectors).max() / 127
    assert low_rank(vectors, 10)[1] == 4 * 640  # nothing is won: as it is
    one, n_bytes = low_rank(np.outer(np.arange(1, 11), vectors[0]).astype(np.float32), 1)
    assert n_bytes == 4 * (10 + 64)
    np.testing.assert_allclose(one, np.outer(np.arange(1, 11), vectors[0]), rtol=1e-4)


def test_what_has_not_moved_is_not_sent_again() -> None:
    """Two agents with a class each. One moves by 1.41 in round 2, the other by nothing: of four means three go up."""
    sent = [[means([0], [[1, 0]]), means([1], [[0, 1]])], [means([0], [[0, 1]]), means([1], [[0, 1]])]]
    tests = ((np.array([[0.0, 1.0]], np.float32), np.array([1])),)
    found = {cut.name: cut for cut in measured(Trained(tuple(map(tuple, sent)), tests))}
    assert found["float32"] == Cut("float32", 16.0, 32.0, 0.0)  # both classes are at the same place: the lower one wins
    assert found["float16"].bytes_up == 8 + 4
    moved = found["moved by 0.1 or more"]
    assert (moved.bytes_up, moved.bytes_down) == (3 / 4 * 16, (2 + 1) / 2 * 16)


def test_a_run_of_its_own_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Trained(((means([0, 1], np.eye(2)),),), ((np.eye(2, dtype=np.float32), np.array([0, 1])),))
    monkeypatch.setattr(prototype_cuts, "trained", lambda file: run)
    assert prototype_cuts.main(["prompts_caltech101", "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "prompts_cuts.json").read_text())
    assert kept["experiment"] == "prompts_caltech101"
    assert kept["cuts"][0] == {"name": "float32", "bytes_up": 32.0, "bytes_down": 32.0, "accuracy": 1.0}
    assert "float16: 24 up, 24 down, accuracy 1.0000" in capsys.readouterr().out
