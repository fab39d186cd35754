"""When a run is evaluated, and on whom."""

from collections.abc import Collection, Iterable

from common import seeds
from common.run_sections import RunFile
from server.ledger import EvaluationRow

WITHIN_TASKS = ("start", "trained")  # moments that are taken inside the training task; the others are offers


def is_due(file: RunFile, round_number: int) -> bool:
    """After this round; after the last one whenever the run is evaluated at all."""
    every = file.evaluation.every
    return every > 0 and (round_number % every == 0 or round_number == file.run.rounds)


def is_due_within_tasks(file: RunFile, round_number: int) -> bool:
    """Of the moments taken inside training tasks, which may come more often: they cost no transfer."""
    every = file.evaluation.every_task
    return is_due(file, round_number) if every is None else every > 0 and round_number % every == 0


def chosen(
    file: RunFile, place: tuple[int, int], ready: Iterable[str], online: Collection[str], sampled: Iterable[str]
) -> EvaluationRow:
    """Who measures the State after that (step, round): those that are not connected now are missing."""
    step, round_number = place
    agents = file.evaluation.agents
    if agents == "all":
        names = sorted(ready)
    elif agents == "sampled":
        names = sorted(sampled)
    else:
        order = sorted(ready)
        drawn = seeds.generator(file.run.seed, round_number, "evaluation").permutation(len(order))[: int(agents)]
        names = sorted(order[i] for i in drawn)
    return EvaluationRow(
        step=step,
        round=round_number,
        agents=tuple(name for name in names if name in online),
        missing=tuple(name for name in names if name not in online),
    )
