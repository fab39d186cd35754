"""Ways to FedOBP's q without test data: from a budget of bytes, or from data that agents hold out of training.

(A third, a multiple of the mean score, needs no q: `saliency.Rule.times`.) With held-out data the server sends the
personal entries of several candidate q at once, as nested levels; each agent counts how many held-out samples its
start model gets right with each of them, and the server takes the candidate that was right most often of late.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from common import entries, saliency
from common.errors import RemoteFault
from common.payloads import Encoding, Sparse, Weights


@dataclass(frozen=True)
class Trials:
    """Held-out samples that starts with each candidate got right, of `n`; old ones count for less and less."""

    correct: tuple[float, ...] = ()
    n: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What one agent counted, candidate by candidate; empty where it holds no data out or has no earlier model."""

    correct: tuple[int, ...] = ()
    n: int = 0


def of_bytes(n_scored: int, budget: int, encoding: Encoding) -> float:
    """The q with which the personal entries of n, as index and value, take at most so many bytes."""
    k = min(n_scored - 1, budget // entries.bytes_of_one(encoding))
    return min(1.0, (n_scored - 0.5 - k) / (n_scored - 1)) if n_scored > 1 else 1.0  # .5: no rounding below the rank


def check_one_of(times: float, budget_bytes: int, *, by_agent: bool) -> None:
    if times and budget_bytes:
        raise ValueError(f"times and budget_bytes exclude each other, got {times} and {budget_bytes}")
    if budget_bytes < 0 or (budget_bytes and by_agent):
        raise ValueError(f"budget_bytes must not be negative, and needs score_on = 'server', got {budget_bytes}")


def best(trials: Trials, candidates: tuple[float, ...], otherwise: float) -> float:
    """The candidate that was right most often, of equals the highest, which costs the least."""
    if not trials.n:
        return otherwise
    return max(zip(trials.correct, candidates, strict=True))[1]


def after(trials: Trials, answers: Iterable[Answer], candidates: tuple[float, ...], keep: float) -> Trials:
    """With a step's answers; what was there before counts for `keep` of what it did."""
    correct = np.array(trials.correct or (0.0,) * len(candidates)) * keep
    n = trials.n * keep
    for answer in answers:
        if answer.n:
            correct += answer.correct
            n += answer.n
    return Trials(tuple(float(value) for value in correct), float(n))


def check(agent: str, answer: Answer, candidates: tuple[float, ...]) -> Answer:
    """The answer, if it can be one.

    Raises:
        RemoteFault: it cannot.
    """
    expected = len(candidates) if answer.n else 0
    if answer.n < 0 or len(answer.correct) != expected or not all(0 <= one <= answer.n for one in answer.correct):
        raise RemoteFault(
            f"agent {agent}: its counts of held-out samples are none: expected {expected} numbers from 0 to"
            f" {answer.n}, got {list(answer.correct)}"
        )
    return answer


def levels(
    rule: saliency.Rule, running: saliency.Scored, own: Weights, candidates: tuple[float, ...]
) -> tuple[Sparse, ...]:
    """The personal entries of each candidate beyond those of the next higher one; the highest candidate's first."""
    ranked, inner, found = saliency.ranked(rule, running), None, []
    for q in reversed(candidates):
        bits = saliency.above_quantile(ranked, q)
        more = bits if inner is None else {name: mask & ~inner[name] for name, mask in bits.items()}
        found.append(entries.as_values(own, more))
        inner = bits
    return tuple(found)


def starts(base: Weights, given: Iterable[Sparse]) -> Iterator[Weights]:
    """The start model of each candidate, the highest first, put together level by level."""
    for level in given:
        base = entries.put_back(base, level, None)
        yield base
