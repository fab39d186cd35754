"""The mixed fleet: what each kind of device did, whether it kept its budget, and the time until a score is reached."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import mixed_fleet
from benchmarks.condensed import Run
from benchmarks.mixed_fleet import MIB, Did, Kept
from benchmarks.pages import _hmoe_scores as scores
from benchmarks.pages._parts import NOT_RUN, grid, kept, shown
from benchmarks.table import number

TURN, RESOURCES = "experts, in turn", "experts, by resources"
TARGET = 0.9  # of what round robin reaches in the end


def sections(folder: Path) -> Iterator[str]:
    found, path = kept(folder, mixed_fleet.NAME), folder / mixed_fleet.DEVICES
    if not found.runs or not path.exists():
        yield f"`python -m benchmarks.mixed_fleet --keep docs/experiments`: {NOT_RUN}.\n"
        return
    devices = mixed_fleet.load(path)
    yield _introduction(devices)
    yield _by_device(devices.devices)
    yield from _claims(found.runs, devices.devices)
    yield from _times(found.runs)


def _introduction(devices: Kept) -> str:
    shares = sorted({d.cores for d in devices.devices})
    return (
        f"Six real agents with a process each; shares of a core ({' and '.join(f'{s:g}' for s in shares)}) by"
        f" {devices.shares_by}. A budget is what a task may map beyond the idle process; the system refuses more"
        " (RLIMIT_DATA), so what would exceed it fails. Peaks are measured beside that: of resident memory, the"
        " most of any task that was answered, with pages of libraries that the task was the first to touch.\n"
    )


def _by_device(devices: Sequence[Did]) -> str:
    rows = []
    for did in devices:
        peak = f"{did.peak_bytes / MIB:.1f}" if did.merged else ""
        budget = "none" if did.budget_bytes is None else f"{did.budget_bytes / MIB:.0f}"
        counts = [str(n) for n in (did.merged, did.failed, did.late, did.experts, did.steps)]
        seconds = number(did.train_s, 1e-3) if did.merged else ""
        rows.append([did.label, did.device, budget, f"{did.cores:g}", *counts, seconds, peak])
    titles = ["row", "device", "budget, MiB", "cores", "tasks merged", "failed", "late", "experts", "trainings of one"]
    return grid([*titles, "ms a task", "peak added, MiB"], rows)


def _claims(runs: Sequence[Run], devices: Sequence[Did]) -> Iterator[str]:
    for run in runs:
        mine = [d for d in devices if d.label == run.label]
        idle = [d.device for d in mine if not d.merged]
        over = [d for d in mine if d.budget_bytes is not None and d.peak_bytes > d.budget_bytes]
        failed = sum(d.failed for d in mine)
        said = "all devices contribute" if not idle else f"nothing comes from {', '.join(idle)}"
        kept_to = f"{failed} tasks fail, and no device's peak is above its budget"
        if over:
            above = ", ".join(f"{d.device} ({d.peak_bytes / MIB:.1f} MiB)" for d in over)
            kept_to = f"{failed} tasks fail, and peaks are above the budget on {above}"
        yield f"- `{run.label}`: {said}; {kept_to}.\n"
        for reason in list(dict.fromkeys(d.reason for d in mine if d.reason))[:1]:
            yield f"  The first failure says: “{reason}”\n"


def _times(runs: Sequence[Run]) -> Iterator[str]:
    by_label = {run.label: run for run in runs}
    rows = []
    for run in runs:
        spent = sum(r.seconds for r in run.rounds)
        rows.append([run.label, _percent(scores.f1_of(run)), str(len(run.rounds)), f"{spent:.0f}"])
    yield "Seconds of rounds, waiting for the slowest included, measurements left out:\n"
    yield grid(["row", "F1 at the end, %", "rounds", "seconds"], rows)
    end = scores.f1_of(by_label[TURN]) if TURN in by_label else None
    if end is None or RESOURCES not in by_label:
        yield f"Time to reach the same F1: {NOT_RUN}.\n"
        return
    target = TARGET * end
    times = [(label, seconds_to(by_label[label], target)) for label in by_label]
    said = [f"`{label}` {'never' if t is None else f'after {t:.0f} s'}" for label, t in times]
    yield f"An F1 of {100 * target:.2f} % (nine tenths of what `{TURN}` ends with) is reached: {', '.join(said)}.\n"


def seconds_to(run: Run, target: float) -> float | None:
    """Seconds of rounds up to the first measurement with at least so much F1, by the best decoder."""
    for measured in run.measured:
        values = [measured.metrics[name] for _, name in scores.CLASSES if name in measured.metrics]
        if values and max(values) >= target:
            return sum(r.seconds for r in run.rounds if r.round <= measured.round)
    return None


def _percent(value: float | None) -> str:
    return shown(None if value is None else (value, None), 100.0)
