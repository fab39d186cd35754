"""Numbers that change over the rounds: `lr = {start = 0.1, end = 0.01, shape = "cosine"}` in a run file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Shape = Literal["linear", "cosine", "exponential", "step"]


@dataclass(frozen=True)
class Schedule:
    """From `start` in round 1 to `end` in round `over` (default: the run's last), and `end` after that.

    `linear` and `cosine` move every round, `exponential` by a constant factor, `step` jumps to `end` at `over`.
    """

    start: float
    end: float
    shape: Shape = "linear"
    over: int | None = None

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):  # it comes from a file
            raise ValueError(f"shape must be one of {', '.join(get_args(Shape))}, got {self.shape!r}")
        if self.shape == "exponential" and (self.start <= 0 or self.end <= 0):
            raise ValueError(f"an exponential schedule needs start and end above 0, got {self.start} and {self.end}")
        if self.over is not None and self.over < 1:
            raise ValueError(f"over counts rounds and must be at least 1, got {self.over}")

    def at(self, round_number: int, rounds: int) -> float:
        last = self.over or rounds
        done = 1.0 if round_number >= last else (round_number - 1) / max(last - 1, 1)
        match self.shape:
            case "step":
                return self.end if done >= 1 else self.start
            case "exponential":
                return float(self.start * (self.end / self.start) ** done)
            case "cosine":
                done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


def is_schedule(value: object) -> bool:
    """Whether a value of a run file stands for a schedule: a table with both ends given."""
    return isinstance(value, Mapping) and {"start", "end"} <= value.keys()


def resolved(value: Any, at: "AtRound") -> Any:  # Any: a value of a TOML file
    """The value with every schedule in it turned into that round's number."""
    if is_schedule(value):
        return at(value)
    if isinstance(value, Mapping):
        return {key: resolved(inner, at) for key, inner in value.items()}
    return value


@dataclass(frozen=True)
class AtRound:
    """Turns a schedule's table into its number in one round."""

    round: int
    rounds: int

    def __call__(self, table: Mapping[str, Any]) -> float:
        return Schedule(**table).at(self.round, self.rounds)
