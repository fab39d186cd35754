"""Schedules over root R with A (classes a, b, c) and B (d, e), A with A1 (a, b) below: need R sqrt 5, A sqrt 3."""

import math
from dataclasses import replace

import pytest

from common import expert_schedule, taxonomy
from common.errors import ConfigError
from common.expert_schedule import Demand, span
from common.method import AgentInfo, DataFacts, SpanReport

EDGES = (("R", "A"), ("R", "B"), ("A", "A1"), ("A1", "a"), ("A1", "b"), ("A", "c"), ("B", "d"), ("B", "e"))
TREE = taxonomy.build(EDGES, ("a", "b", "c", "d", "e"))
NODES = tuple(TREE.children)
MB = 10**6
SIZES = dict.fromkeys(NODES, MB)


def agent(
    name: str,
    counts: tuple[int, ...] | None = (10, 10, 10, 10, 10),
    *,
    memory: int | None = None,
    time_s: float | None = None,
    reports: tuple[SpanReport, ...] = (),
    n_train: int = 50,
) -> AgentInfo:
    data = DataFacts("d", 5, "", n_train, 0, counts=counts)
    return AgentInfo(name, data, memory_bytes=memory, time_s=time_s, reports=reports)


def report(node: str, seconds: float, n: int, peak: int = 30 * MB, data_bytes: int = 0) -> SpanReport:
    return SpanReport(span(node), 0, seconds, peak, n, data_bytes, MB)


def demand(**trained: int) -> Demand:
    return Demand({node: trained.get(node, 0) for node in NODES}, SIZES)


def rounds(schedule: expert_schedule.Fixed, n_rounds: int, *, n: int = 1, each: int = 1) -> list[tuple[str, ...]]:
    return [expert_schedule.turn(schedule, TREE, NODES, r, n=n, each=each) for r in range(1, n_rounds + 1)]


# ------------------------------------------------------------------ by the round's number


def test_the_nodes_are_breadth_first() -> None:
    assert NODES == ("R", "A", "B", "A1")


def test_round_robin_takes_one_after_the_other() -> None:
    assert rounds("round_robin", 5) == [("R",), ("A",), ("B",), ("A1",), ("R",)]
    assert rounds("round_robin", 3, n=3) == [("R", "A", "B"), ("A1", "R", "A"), ("B", "A1", "R")]
    assert rounds("round_robin", 2, n=9) == [NODES, NODES]


def test_breadth_first_finishes_a_parent_before_its_children_start() -> None:
    assert rounds("breadth_first", 9, each=2) == [(v,) for v in ("R", "R", "A", "A", "B", "B", "A1", "A1", "R")]
    assert rounds("breadth_first", 4, n=9) == [("R",), ("A", "B"), ("A1",), ("R",)]


def test_proportional_gives_rounds_by_need_after_the_least() -> None:
    """Needs are sqrt 5, sqrt 3, sqrt 2 and sqrt 2."""
    assert sorted(rounds("proportional", 4)) == sorted((v,) for v in NODES)
    total = [v for (v,) in rounds("proportional", 63)]
    needs = {v: expert_schedule.need(TREE, v) for v in NODES}
    assert needs == pytest.approx({"R": math.sqrt(5), "A": math.sqrt(3), "B": math.sqrt(2), "A1": math.sqrt(2)})
    for node, need in needs.items():
        assert total.count(node) == pytest.approx(63 * need / sum(needs.values()), abs=1)
    assert total[:12].count("B") >= 1
    assert [v for (v,) in rounds("proportional", 12, each=3)].count("B") == 3


def test_a_learning_rate_falls_over_an_experts_own_rounds() -> None:
    assert [expert_schedule.annealed(n, 4) for n in range(6)] == pytest.approx(
        [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, 0]
    )
    assert expert_schedule.annealed(7, 0) == 1


def test_a_round_without_repetition_serves_as_many_different_nodes() -> None:
    for chosen in rounds("proportional", 10, n=2):
        assert len(set(chosen)) == 2


# ------------------------------------------------------------------ by what agents measured


def test_a_node_without_samples_is_never_assigned() -> None:
    only_b = agent("x", (0, 0, 0, 5, 5))
    assert set(expert_schedule.assign(TREE, demand(), [only_b])["x"]) == {"R"}  # 10 samples are as long as a round
    assert "x" not in expert_schedule.assign(TREE, demand(), [agent("x", (0,) * 5)])
    with_time = replace(only_b, time_s=100.0)
    assert set(expert_schedule.assign(TREE, demand(), [with_time])["x"]) == {"R", "B"}


def test_without_counts_an_agent_is_taken_to_have_its_share() -> None:
    assert expert_schedule.samples_under(TREE, "A", agent("x", None)) == 30
    told = agent("x", None, reports=(report("A", 1.0, 7),))
    assert expert_schedule.samples_under(TREE, "A", told) == 7


def test_costs_are_measured_ones_and_scaled_where_there_are_none() -> None:
    """A (30 samples) took 3 s and 30 MB, 6 MB of them samples: B (20) takes 2 s, R (50) 5 s and 4 MB more."""
    x = agent("x", reports=(report("A", 3.0, 30, 30 * MB, 6 * MB),))
    costs = expert_schedule.costs_of(TREE, x, SIZES)
    assert (costs["A"].seconds, costs["A"].memory_bytes) == (3.0, 30 * MB)
    assert (costs["B"].seconds, costs["B"].memory_bytes) == (pytest.approx(2.0), 30 * MB)
    assert (costs["R"].seconds, costs["R"].memory_bytes) == (pytest.approx(5.0), pytest.approx(34 * MB))
    wider = expert_schedule.costs_of(TREE, x, {**SIZES, "R": 4 * MB})
    assert wider["R"].memory_bytes == pytest.approx(64 * MB)  # twice the width


def test_a_weak_board_and_a_workstation_are_both_busy() -> None:
    """The board needs ten times as long and has room for 28 MB; the round is as long as its cheapest expert."""
    sizes = {"R": 30, "A": 20, "B": 10, "A1": 10}
    slow = tuple(report(v, n / 2, n, (20 + n) * MB) for v, n in sizes.items())
    fast = tuple(report(v, n / 20, n, (20 + n) * MB) for v, n in sizes.items())
    counts = (5, 5, 10, 5, 5)
    board = agent("board", counts, memory=35 * MB, reports=slow)
    station = agent("station", counts, reports=fast)
    got = expert_schedule.assign(TREE, demand(), [board, station])
    assert set(got["board"]) <= {"B", "A1"}
    assert set(got["station"]) >= {"R", "A"}
    again = expert_schedule.assign(TREE, demand(), [station, board])
    assert again == got


def test_what_was_trained_least_for_its_need_comes_first() -> None:
    x = agent("x", time_s=11.2, reports=tuple(report(v, 10.0, 10) for v in NODES))
    assert expert_schedule.assign(TREE, demand(R=1, A=1, B=0, A1=1), [x])["x"] == ("B",)
    assert expert_schedule.assign(TREE, demand(R=1, A=1, B=1, A1=1), [x])["x"] == ("R",)


def test_a_budget_of_time_is_kept_but_for_the_cheapest() -> None:
    x = agent("x", time_s=1.0, reports=tuple(report(v, 10.0 * (i + 1), 10) for i, v in enumerate(NODES)))
    assert expert_schedule.assign(TREE, demand(), [x])["x"] == ("R",)


def test_before_any_measurement_a_small_agent_gets_its_cheapest_expert_alone() -> None:
    assert expert_schedule.assign(TREE, demand(), [agent("x", memory=90 * MB)])["x"] == ("B",)


def test_one_bad_measurement_does_not_end_an_agent() -> None:
    x = agent("x", memory=50 * MB, reports=tuple(report(v, 1.0, 10, 130 * MB) for v in NODES))
    assert len(expert_schedule.assign(TREE, demand(), [x])["x"]) == 1


def test_an_agent_that_no_expert_fits_is_left_out_and_a_fleet_of_such_is_an_error() -> None:
    small = agent("small", memory=MB // 2)
    got = expert_schedule.assign(TREE, demand(), [small, agent("large")])
    assert set(got) == {"large"}
    text = r"the smallest is 'B': training it takes 1.0 MB .* that of agent small, is 0.5 MB"
    with pytest.raises(ConfigError, match=text):
        expert_schedule.assign(TREE, demand(), [small, agent("smaller", memory=1000)])


def test_only_what_is_in_demand_is_assigned() -> None:
    got = expert_schedule.assign(TREE, Demand({"A1": 0}, SIZES), [agent("x"), agent("y", (0, 0, 0, 9, 9))])
    assert got == {"x": ("A1",)}
