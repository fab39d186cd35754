from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import scoring_fedobp as scoring


def test_memory_does_not_grow_with_the_agents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scoring, "AGENTS", (4, 40))
    monkeypatch.setattr(scoring, "QS", (0.9999,))
    few, many = scoring.run(tmp_path).timed
    assert many.rss_peak_delta_bytes < few.rss_peak_delta_bytes + 3 * 2_328_104  # of 36 models more
    assert many.values_bytes == 59 * 8
