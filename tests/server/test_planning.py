"""What `plan` is told of an agent's measurements."""

from common import pb
from server import planning


def report(seconds: float, *, warmup: bool = False, **spans: float) -> pb.ResourceReport:
    return pb.ResourceReport(
        seconds={"train": seconds},
        warmup=warmup,
        spans=[pb.Span(name=name, seconds=s) for name, s in spans.items()],
    )


def seen(*reports: pb.ResourceReport) -> dict[str, tuple[int, float]]:
    """name -> (step, seconds) after these reports, one a step."""
    kept = b""
    for step, each in enumerate(reports):
        kept = planning.latest_spans(kept, each, step)
    return {span.name: (span.step, span.seconds) for span in planning.decoded_spans(kept)}


def test_the_latest_report_of_each_span_is_kept() -> None:
    assert seen(report(1, x=3), report(2, y=4)) == {"train": (1, 2), "x": (0, 3), "y": (1, 4)}


def test_a_warm_up_is_used_while_there_is_nothing_better_and_never_after() -> None:
    """Loading libraries took most of its time: an expert that was tried first would look too dear for ever."""
    first, second = report(9, warmup=True, x=9), report(1, y=1)
    assert seen(first) == {"train": (0, 9), "x": (0, 9)}
    assert seen(first, second) == {"train": (1, 1), "x": (0, 9), "y": (1, 1)}
    assert seen(first, second, report(8, warmup=True, x=8, y=8)) == {"train": (1, 1), "x": (2, 8), "y": (1, 1)}
    assert seen(first, second, report(8, warmup=True, x=8), report(2, x=2)) == {
        "train": (3, 2),
        "x": (3, 2),
        "y": (1, 1),
    }
