"""Which numbers of an agent are not believed."""

from typing import Any

import pytest

from common import pb
from common.errors import RemoteFault
from server import claims

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.ResourceReport(cpu_s=NAN), "cpu_s must be finite, got nan"),
        (pb.ResourceReport(seconds={"train": INF}), r"seconds\['train'\] must be finite, got inf"),
        (pb.ResourceReport(counts={"right": -INF}), r"counts\['right'\] must be finite, got -inf"),
        (pb.ResourceReport(spans=[pb.Span(), pb.Span(n_samples=2**63)]), "spans.n_samples must be at most 92233720368"),
        (pb.ResourceReport(device=pb.DeviceFacts(memory_bytes=2**64 - 1)), "device.memory_bytes must be at most"),
        (pb.Hello(time_budget_s=INF), "time_budget_s must be finite"),
    ],
)
def test_numbers_that_cannot_be_are_named(message: Any, text: str) -> None:
    with pytest.raises(RemoteFault, match=f"agent a: {text}"):
        claims.check(message, "agent a")


def test_what_can_be_passes() -> None:
    """A diverged training has a loss that is no number, and what was loaded is taken off the seconds of a phase."""
    claims.check(pb.ResourceReport(loss=NAN, seconds={"train": -1e-9}, n_samples=2**63 - 1), "agent a")
    claims.check(pb.ResourceReport(), "agent a")
    claims.check_facts(pb.DataFacts(n_train=7, has_counts=True, counts=[3, 4]), 2, "agent a")
    claims.check_facts(pb.DataFacts(n_train=7), 2, "agent a")


def test_counts_are_of_all_classes() -> None:
    with pytest.raises(RemoteFault, match="agent a: expected samples of 3 classes, got 0 counts"):
        claims.check_facts(pb.DataFacts(n_train=7, has_counts=True), 3, "agent a")
