"""`python -m benchmarks.mixed_fleet`: experiment hmoe_mixed_fleet on six devices of unequal means, all on this machine.

Each device is a real edge-agent process with a memory budget of its own, which the system enforces on the process of
its task, and a share of a core: by a control group where this user may make one, else by `nice`, which only tells
when the cores are busy. Beside the results it keeps what no mean over agents can show: what each device did.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import ONE_THREAD, PAGES, experiment, fleet, keeping, results, table
from benchmarks.results import AgentRow, Results, RunRow
from common import files, pb, runfile
from common.errors import EXIT_INTERRUPTED, FederationError

NAME = "hmoe_mixed_fleet"
DEVICES = f"{NAME}_devices.json"
MIB = 2**20
PERIOD_US = 50_000
NICE = 6  # about a quarter of the weight of nice 0, in Linux's scheduler
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    name: str
    budget_bytes: int | None  # for one task, above the idle process
    cores: float


# Two of each kind; the weak ones have a quarter of a strong one's share.
FLEET = tuple(
    Device(f"{kind}-{i}", budget, cores)
    for kind, budget, cores in (("small", 32 * MIB, 0.1), ("some", 96 * MIB, 0.1), ("large", None, 0.4))
    for i in range(2)
)


@dataclass(frozen=True)
class Did:
    """What one device did in one run. Memory is the most that any of its tasks added to its process."""

    label: str
    device: str
    cores: float
    merged: int
    failed: int
    late: int
    peak_bytes: int
    train_s: float  # wall seconds, median over tasks
    experts: int  # different ones
    steps: int  # experts trained, over all rounds
    reason: str = ""  # of the first task that failed
    budget_bytes: int | None = None  # without limit


@dataclass(frozen=True)
class Kept:
    experiment: str
    shares_by: str  # what enforced them
    devices: tuple[Did, ...]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_fleet", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out") / NAME, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="DIR", help=f"condensed results and {DEVICES} too, as {PAGES}")
    parser.add_argument("--row", action="append", default=[], metavar="LABEL", help="this row alone; may be repeated")
    args = parser.parse_args(argv)
    os.environ.update(ONE_THREAD)
    try:
        with fleet.ended_by_signals():
            found, shares_by = run(args.out, args.row)
            kept = Kept(found.experiment, shares_by, tuple(did for r in found.runs for did in of_devices(r)))
            save(kept, args.out / DEVICES)
            if args.keep is not None:
                keeping.condense([args.out], args.keep)
                save(kept, args.keep / DEVICES)
    except FederationError as error:
        print(f"mixed_fleet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mixed_fleet: interrupted; finished rows are kept, run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def run(out: Path, rows: Sequence[str] = ()) -> tuple[Results, str]:
    """All rows, or these, that are not in the folder yet, and what gave the devices their shares of a core."""
    stem, text = experiment.find(NAME)
    chains = experiment.planned(runfile.parse(text, NAME))
    path = out / "results.json"
    found = experiment.start(stem, path)
    order = [chain[0].label for chain in chains]
    todo = experiment.unfinished([chain for chain in chains if not rows or chain[0].label in rows], found.runs)
    shares_by = _how()
    if todo:
        with fleet.server(out / "logs") as federation, contextlib.ExitStack() as stack:
            for device in FLEET:
                federation.agents.append(stack.enter_context(_started(device, federation, out / "logs")))
            federation.wait_for(len(FLEET))
            for plan in (plan for chain in todo for plan in chain):
                row = experiment.execute(plan, federation, _told)
                found = experiment.kept(found, row, order, {})
                results.save(found, path)
                print(f"{plan.title}: {row.status}, {row.seconds:.0f} s {row.reason}", flush=True)
    return replace(found, table=tuple(table.rows(found.runs))), shares_by


def of_devices(row: RunRow) -> tuple[Did, ...]:
    """What each device of FLEET did in a run."""
    return tuple(_did(row.label, device, _tasks(row, device.name)) for device in FLEET)


def save(kept: Kept, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_durably(path, [(json.dumps(results.as_json(kept), indent=1) + "\n").encode()])


def load(path: Path) -> Kept:
    """Errors as of `results.read_json`."""
    return results.read_json(Kept, path)


def _tasks(row: RunRow, name: str) -> list[AgentRow]:
    return [task for r in row.rounds for task in r.agents if task.agent == name]


def _did(label: str, device: Device, tasks: list[AgentRow]) -> Did:
    merged = [t for t in tasks if t.outcome == "merged"]
    failed = [t for t in tasks if t.outcome == "failed"]
    experts = [span.name for t in merged for span in t.spans]
    return Did(
        label=label,
        device=device.name,
        budget_bytes=device.budget_bytes,
        cores=device.cores,
        merged=len(merged),
        failed=len(failed),
        late=sum(t.outcome == "late" for t in tasks),
        peak_bytes=max((t.rss_peak_delta_bytes for t in merged), default=0),
        train_s=round(statistics.median(t.train_s for t in merged), 3) if merged else 0.0,
        experts=len(set(experts)),
        steps=len(experts),
        reason=re.sub(r"\s+", " ", failed[0].reason) if failed else "",
    )


def _told(plan: experiment.Planned, event: pb.RunEvent) -> None:
    if sys.stderr.isatty() and event.note:
        print(f"{plan.title}: {event.note}", file=sys.stderr)


# ------------------------------------------------------------------ devices


@contextlib.contextmanager
def _started(device: Device, federation: fleet.Federation, logs: Path) -> Iterator[fleet.Process]:
    budget = () if device.budget_bytes is None else ("--memory-budget", str(device.budget_bytes))
    state = federation.state / "agents" / device.name
    words = ["--name", device.name, "--data", "named", "--share", "counts", "--workers", "1", *budget]
    command = [*fleet.AGENT, "--server", federation.address, *words, "--state-dir", str(state)]
    with _share(device) as group, fleet.started(device.name, command, logs) as process:
        if group is not None:
            (group / "cgroup.procs").write_text(str(process.popen.pid))  # its children are born into the group
        elif device.cores < max(d.cores for d in FLEET):
            os.setpriority(os.PRIO_PROCESS, process.popen.pid, NICE)
        yield process


@contextlib.contextmanager
def _share(device: Device) -> Iterator[Path | None]:
    """A control group with the device's share of a core, gone on leaving; None where none can be made."""
    group = _group(device)
    try:
        yield group
    finally:
        if group is not None:
            _removed(group)


def _group(device: Device) -> Path | None:
    quota = round(device.cores * PERIOD_US)
    name = f"edgefed-{os.getpid()}-{device.name}"
    for parent, limits in (
        (GROUPS, {"cpu.max": f"{quota} {PERIOD_US}"}),
        (GROUPS / "cpu", {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}),  # version 1
    ):
        group = parent / name
        try:
            if not (parent / "cgroup.procs").exists():
                continue
            group.mkdir()
            for file, text in limits.items():
                if not (group / file).exists():
                    raise FileNotFoundError(file)  # the parent does not hand this controller down
                (group / file).write_text(text)
        except OSError:
            _removed(group)
        else:
            return group
    return None


def _removed(group: Path) -> None:
    for _ in range(50):  # until the last process in it is gone
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return


def _how() -> str:
    with _share(Device("probe", None, 0.1)) as group:
        return "nice" if group is None else "control groups"


if __name__ == "__main__":
    sys.exit(main())
