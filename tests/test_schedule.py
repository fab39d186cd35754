import pytest

from common.schedule import AtRound, Schedule, resolved


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        # (1 - cos(pi t)) / 2 at t = 0, 1/4, 1/2, 3/4, 1 is 0, 0.1464, 0.5, 0.8536, 1
        ("cosine", [1.0, 0.853553, 0.5, 0.146447, 0.0]),
        ("step", [1.0, 1.0, 1.0, 1.0, 0.0]),
    ],
)
def test_five_rounds_of_each_shape(shape, numbers):
    schedule = Schedule(1.0, 0.0, shape)
    assert [schedule.at(r, 5) for r in range(1, 6)] == pytest.approx(numbers, abs=1e-6)


def test_exponential_moves_by_a_constant_factor():
    assert [Schedule(8.0, 1.0, "exponential").at(r, 4) for r in (1, 2, 3, 4)] == pytest.approx([8, 4, 2, 1])


def test_after_its_last_round_a_schedule_stays_at_its_end():
    assert Schedule(1.0, 0.5, over=2).at(7, 10) == 0.5


def test_a_run_of_one_round_is_at_its_end():
    assert Schedule(1.0, 0.5).at(1, 1) == 0.5


def test_an_exponential_schedule_refuses_zero():
    with pytest.raises(ValueError, match="needs start and end above 0"):
        Schedule(1.0, 0.0, "exponential")


def test_only_tables_with_both_ends_are_schedules():
    table = {"lr": {"start": 1.0, "end": 0.0}, "map": {"start": "a"}}
    assert resolved(table, AtRound(1, 3)) == {"lr": 1.0, "map": {"start": "a"}}
