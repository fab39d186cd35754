"""The meter against loads whose cost is known."""

import hashlib
import threading
import time

import numpy as np
import pytest

from common.meter import Meter, reset_high_water

MIB = 1 << 20


def hold(n_bytes: int, seconds: float) -> None:
    block = np.ones(n_bytes, np.uint8)  # written, so that every page is resident
    threading.Event().wait(seconds)
    del block


def test_an_allocation_of_50_ms_is_seen_within_10_percent() -> None:
    meter = Meter()
    with meter.measuring():
        hold(64 * MIB, 0.05)
    assert meter.measured.whole.rss_peak_delta_bytes == pytest.approx(64 * MIB, rel=0.1)


def test_the_sampler_alone_sees_it_where_there_is_no_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.meter.reset_high_water", lambda: False)
    meter = Meter()
    with meter.measuring():
        hold(64 * MIB, 0.5)
    assert meter.measured.whole.rss_peak_delta_bytes == pytest.approx(64 * MIB, rel=0.1)
    assert meter.measured.vm_hwm_bytes == 0


@pytest.mark.skipif(not reset_high_water(), reason="this system has no high-water mark that can be reset")
def test_a_peak_between_two_samples_is_seen_by_the_high_water_mark() -> None:
    meter = Meter(sample_s=60)
    with meter.measuring():
        hold(64 * MIB, 0)
    assert meter.measured.whole.rss_peak_delta_bytes == pytest.approx(64 * MIB, rel=0.1)
    assert meter.measured.vm_hwm_bytes == meter.measured.whole.rss_peak_bytes


def test_an_earlier_peak_does_not_count() -> None:
    hold(128 * MIB, 0)
    meter = Meter()
    with meter.measuring():
        hold(16 * MIB, 0)
    assert meter.measured.whole.rss_peak_delta_bytes == pytest.approx(16 * MIB, rel=0.1)


def test_two_threads_that_spin_for_a_second_cost_two_cpu_seconds() -> None:
    chunk = b"x" * MIB
    budget_s = 1.0  # of CPU time per thread: wall time depends on what else the machine does

    def spin() -> None:
        while time.thread_time() < budget_s:
            hashlib.sha256(chunk)  # releases the GIL

    threads = [threading.Thread(target=spin) for _ in range(2)]
    meter = Meter()
    with meter.measuring():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert meter.measured.whole.cpu_s == pytest.approx(2.0, rel=0.1)
    assert meter.measured.whole.seconds >= 1.0


def test_each_span_has_its_own_peak_and_the_task_has_the_largest() -> None:
    meter = Meter()
    with meter.measuring():
        with meter.span("large", 7):
            hold(64 * MIB, 0)
        with meter.span("small", 3):
            hold(16 * MIB, 0)
    large, small = meter.measured.spans
    assert (large.name, large.n_samples, small.name, small.n_samples) == ("large", 7, "small", 3)
    assert large.rss_peak_delta_bytes == pytest.approx(64 * MIB, rel=0.1)
    assert small.rss_peak_delta_bytes == pytest.approx(16 * MIB, rel=0.1)
    assert meter.measured.whole.rss_peak_delta_bytes == pytest.approx(64 * MIB, rel=0.1)


def test_a_peak_before_an_inner_span_stays_the_outer_one_s() -> None:
    meter = Meter(sample_s=60)
    with meter.measuring(), meter.span("outer"):
        hold(64 * MIB, 0)
        with meter.span("inner"):
            pass
    inner, outer = meter.measured.spans
    assert outer.rss_peak_delta_bytes == pytest.approx(64 * MIB, rel=0.1)
    assert inner.rss_peak_delta_bytes < 8 * MIB


def test_the_sampler_ends_with_the_task_even_when_it_raises() -> None:
    meter = Meter(sample_s=60)
    begin = time.monotonic()
    with pytest.raises(ZeroDivisionError), meter.measuring():
        _ = 1 / 0
    assert "meter" not in [thread.name for thread in threading.enumerate()]
    assert time.monotonic() - begin < 10


def test_phases_and_counts_add_up() -> None:
    meter = Meter()
    for _ in range(2):
        with meter.phase("decode"):
            hold(0, 0.01)
        meter.count("experts", 2)
    assert meter.measured.seconds["decode"] >= 0.02
    assert meter.measured.counts == {"experts": 4}
