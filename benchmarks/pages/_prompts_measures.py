"""What the page of learned prompts reads off a run, and how it compares rows."""

import statistics
from collections.abc import Sequence

from benchmarks.condensed import Run
from benchmarks.pages._parts import Kept, Of

SHARE = 0.95  # of the last round's accuracy
HEADLINE = ("zero-shot", "PromptFL", "FedPGP", "FedOTP", "ours")
SPLITS = (("Dirichlet 0.1", ""), ("Dirichlet 0.5", ", Dirichlet 0.5"), ("disjoint", ", disjoint"))
NO_MEANS = "prompt and adapter, no prototypes"
BLENDED = "ours, blended with the nearest"
HELD_OUT = "ours, blend by held-out data"
BARE = "ours, lambda 0, blended with the nearest"
ALONE = "adapter only"
MEANS = "adapter and class means, blended"
MEANS_HELD_OUT = "adapter and class means, blend by held-out data"
VARIANTS = (ALONE, MEANS, MEANS_HELD_OUT)  # not of the paper
OWN = ", own classes"


def of(name: str) -> Of:
    """A metric of the last evaluation."""

    def last(run: Run) -> float | None:
        return next((m.metrics[name] for m in reversed(run.measured) if name in m.metrics), None)

    return last


def cost(name: str, unit: float) -> Of:
    """Of one agent's task: see table.costs."""

    def of(run: Run) -> float | None:
        return run.costs[name] / unit if name in run.costs else None

    return of


accuracy = of("personal_accuracy")
own_accuracy = of("personal_accuracy_own")


def last_five(run: Run) -> float | None:
    values = [m.metrics["personal_accuracy"] for m in run.measured if "personal_accuracy" in m.metrics][-5:]
    return statistics.fmean(values) if values else None


def before(run: Run) -> float | None:
    return run.rounds[-1].metrics.get("personal_accuracy_trained") if run.rounds else None


def rounds_to(run: Run) -> float | None:
    """The first round from which accuracy stays above that share of the last round's."""
    on_test = [m for m in run.measured if "personal_accuracy" in m.metrics]  # held-out data are measured, too
    values = [m.metrics["personal_accuracy"] for m in on_test]
    if not values:
        return None
    low = [i for i, value in enumerate(values) if value < SHARE * values[-1]]
    return float(on_test[low[-1] + 1].round if low else on_test[0].round)


def of_seeds(found: Kept, labels: Sequence[str]) -> dict[str, list[Run]]:
    """Runs by label, of the seeds that all rows with any runs have: what is compared has the same draws."""
    runs = {label: found.of(label) for label in labels}
    seeds = [{run.seed for run in some} for some in runs.values() if some]
    common = set.intersection(*seeds) if seeds else set()
    return {label: [run for run in some if run.seed in common] for label, some in runs.items()}


def points(found: Kept, label: str, over: str) -> float | None:
    """How many points of accuracy the one row has more than the other, a mean over the seeds that both have."""
    both = of_seeds(found, (label, over))
    values = [[a for run in both[name] if (a := accuracy(run)) is not None] for name in (label, over)]
    if not all(values):
        return None
    return 100 * (statistics.fmean(values[0]) - statistics.fmean(values[1]))
