"""The page on self-supervision, its second half: what an agent pays in each stage, and one backbone for many tasks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.condensed import Run
from benchmarks.pages._parts import NOT_RUN, Kept, Of, grid, mean, shown
from benchmarks.pages._ssl_figures import FEDERATED, LOCAL, RANDOM, SCRATCH, TASKS, Arm, runs_of
from common import models
from common.errors import FederationError
from common.method import ModelSpec

COMPUTED = Arm("random backbone, frozen, features not kept", "probe-computed")
PRE_TRAINED, PROBED, ISOLATED = Arm(FEDERATED, "ssl"), Arm(FEDERATED, "probe"), Arm(SCRATCH, "full")
PAID = (
    ("pre-training, federated", PRE_TRAINED),
    ("pre-training, alone", Arm(LOCAL, "ssl")),
    ("head, features kept", PROBED),
    ("head, features computed", COMPUTED),
    ("head and last stage", Arm(FEDERATED, "last")),
    ("all", Arm(FEDERATED, "full")),
    ("all, backbone averaged", Arm(FEDERATED, "shared")),
    ("all, from scratch", ISOLATED),
)
MANY = (2, 10, 50)


def paid(name: str, scale: float = 1.0) -> Of:
    return lambda run: run.costs[name] / scale if name in run.costs else None


def per_task(found: Kept) -> Iterator[str]:
    yield (
        "One task of one agent, which is a round: medians of training time, of memory above the task's start and of"
        " what model, gradients and optimiser take; means of bytes. Data of both tasks are of like size. What an agent"
        " has already is not sent again: so a backbone that stays costs bytes in the first round only.\n"
    )
    rows = []
    for title, arm in PAID:
        runs = runs_of(found, arm)
        measures = [
            (paid("train_s"), 2), (paid("cpu_s"), 2), (paid("rss_peak_delta_bytes", 1e6), 1),
            (paid("model_bytes", 1e6), 2), (paid("data_bytes", 1e6), 1), (paid("bytes_up", 1e3), 1),
            (paid("bytes_down", 1e3), 1),
        ]  # fmt: skip
        rows.append([title, *(shown(mean(runs, of), digits=digits) for of, digits in measures)])
    titles = ["trained", "s", "CPU s", "memory, MB", "of it model, MB", "of it data, MB", "kB up", "kB down"]
    yield grid(titles, rows)


def features(found: Kept) -> Iterator[str]:
    """A frozen backbone: what the first round costs, and those after it."""
    yield (
        "A head over a frozen backbone, 20 epochs a round, CPU seconds of both agents together in the first round and"
        " in a later one. With kept features the images are looked at once.\n"
    )
    rows = []
    for title, arm in (("features kept", Arm(RANDOM, "probe")), ("features computed in every epoch", COMPUTED)):
        runs = runs_of(found, arm)
        rows.append([title, *(shown(mean(runs, of)) for of in (_first, _later))])
    yield grid(["stage two", "first round", "later round"], rows)


def _first(run: Run) -> float | None:
    return run.rounds[0].cpu_s if run.rounds else None


def _later(run: Run) -> float | None:
    times = [r.cpu_s for r in run.rounds[1:] if r.cpu_s is not None]
    return sum(times) / len(times) if times else None


def total(run: Run) -> float | None:
    """CPU seconds of all tasks of a run."""
    times = [r.cpu_s for r in run.rounds if r.cpu_s is not None]
    return sum(times) if times else None


@dataclass(frozen=True)
class Size:
    """Of the backbone, and of the heads of the experiment's tasks."""

    params: int
    n_bytes: int  # with the statistics of batch norm, as it is stored
    head_params: tuple[int, ...]
    head_bytes: tuple[int, ...]


def size(run: Run) -> Size | None:
    """From the model's own description; None where that cannot be had, because the net needs torch."""
    options = {name: value for name, value in run.config["model"].items() if name not in ("name", "head")}
    params, n_bytes, heads = 0, 0, []
    try:
        for _, n_classes in TASKS.values():
            specs = models.load(ModelSpec(run.config["model"]["name"], options), n_classes).parameters().values()
            params, n_bytes = 0, 0
            of_head = [0, 0]
            for spec in specs:
                n = math.prod(spec.shape)
                if spec.part == "head":
                    of_head = [of_head[0] + n, of_head[1] + n * _width(spec.dtype)]
                else:
                    params, n_bytes = params + n * (spec.kind == "param"), n_bytes + n * _width(spec.dtype)
            heads.append(of_head)
    except FederationError:
        return None
    return Size(params, n_bytes, tuple(h[0] for h in heads), tuple(h[1] for h in heads))


def _width(dtype: str) -> int:
    return 8 if dtype.endswith("64") else 4


def many_heads(found: Kept) -> Iterator[str]:
    """One backbone with a head for each task, against a model for each task."""
    yield (
        "One backbone with T frozen-backbone heads against T models that share nothing. Parameters and bytes are of the"
        " net; further tasks count as the mean of these two. Memory is what model, gradients and optimiser take in a"
        " task. Training is CPU seconds: the whole of pre-training once and a head each, or each task from scratch. The"
        " two do not reach the same accuracy: see the first table.\n"
    )
    isolated = runs_of(found, ISOLATED)
    net = size(isolated[0]) if isolated else None
    if net is None:
        yield f"{NOT_RUN}\n"
        return
    pre, head, alone = (mean(runs_of(found, arm), total) for arm in (PRE_TRAINED, PROBED, ISOLATED))
    memory = [shown(mean(runs_of(found, arm), paid("model_bytes", 1e6))) for arm in (PROBED, ISOLATED)]
    n = len(TASKS)
    mean_head, mean_bytes = sum(net.head_params) / n, sum(net.head_bytes) / n
    rows = []
    for tasks in MANY:
        heads, bytes_of_heads = tasks * mean_head, tasks * mean_bytes
        shared_s = NOT_RUN if pre is None or head is None else f"{pre[0] + tasks * head[0] / n:.0f}"
        alone_s = NOT_RUN if alone is None else f"{tasks * alone[0] / n:.0f}"
        one = [f"{net.params + heads:,.0f}", f"{(net.n_bytes + bytes_of_heads) / 1e6:.2f}", memory[0], shared_s]
        each = [
            f"{tasks * net.params + heads:,.0f}", f"{(tasks * net.n_bytes + bytes_of_heads) / 1e6:.2f}", memory[1],
            alone_s,
        ]  # fmt: skip
        rows += [[f"{tasks} tasks, one backbone", *one], [f"{tasks} tasks, {tasks} models", *each]]
    yield grid(["", "parameters", "disk, MB", "memory, MB", "training, CPU s"], rows)
    if pre is not None and head is not None and alone is not None:
        yield _break_even(pre[0], head[0] / n, alone[0] / n)


def _break_even(pre_s: float, head_s: float, alone_s: float) -> str:
    if alone_s <= head_s:
        return "A head costs no less than a model of its own here, so time is not saved at any number of tasks.\n"
    tasks = math.ceil(pre_s / (alone_s - head_s))
    return (
        f"Space is saved from the second task on. Time is not: pre-training takes {pre_s:.0f} CPU seconds, a model from"
        f" scratch {alone_s:.0f}, a head {head_s:.1f}; so the shared backbone is the cheaper one from {tasks} tasks on,"
        " and for every task that joins later.\n"
    )
