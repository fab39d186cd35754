import sys
from types import SimpleNamespace

import pytest

from edge_client import accelerator


def test_without_a_library_nothing_is_loaded_and_the_peak_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    accelerator.forget_peak()
    assert accelerator.peak_bytes() == 0
    assert "torch" not in sys.modules


def test_the_peak_is_the_library_s_since_it_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[bool] = []
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        reset_peak_memory_stats=lambda: forgotten.append(True),
        max_memory_allocated=lambda: 12_345,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    accelerator.forget_peak()
    assert forgotten == [True]
    assert accelerator.peak_bytes() == 12_345
