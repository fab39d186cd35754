"""All of `fed-bench overhead`: each figure beside its yardstick, as a table, and as JSON with machine and versions."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import host
from benchmarks.overhead import empty_round, idle, memory, transfer
from common import files

MB = 1e6


@dataclass(frozen=True)
class Sizes:
    rounds: int = 300
    transfer_bytes: int = 100_000_000
    transfers: int = 16
    model_bytes: int = 20_000_000
    crowds: tuple[int, ...] = (2, 8, 32)
    idle_hosts: int = 500


QUICK = Sizes(80, 20_000_000, 8, 4_000_000, (2, 8), 50)


@dataclass(frozen=True)
class Line:
    """One figure, its yardstick, and how they compare; `wanted` is what the project asks of itself."""

    what: str
    ours: str
    beside: str = ""
    ratio: str = ""
    wanted: str = ""


def run(output: Any, *, only: str | None, quick: bool) -> int:  # Any: benchmarks.commands.Output, which imports much
    folder, sizes = output.folder or Path("out/overhead"), QUICK if quick else Sizes()
    parts: dict[str, Callable[[Path, Sizes], tuple[dict[str, Any], list[Line]]]] = {
        "round": _round,
        "transfer": _transfer,
        "memory": _memory,
        "idle": _idle,
    }
    figures: dict[str, Any] = {}
    lines: list[Line] = []
    for name, part in parts.items():
        if only in (None, name):
            with output.console.status(f"{name} …"):
                figures[name], told = part(folder / "logs" / name, sizes)
            lines += told
    _write(folder / "overhead.json", figures, sizes)
    _show(output.console, lines)
    if output.as_json:
        print(json.dumps(figures))
    return 0


def _round(folder: Path, sizes: Sizes) -> tuple[dict[str, Any], list[Line]]:
    r = empty_round.measure(folder, rounds=sizes.rounds)
    disk_s = r.fsyncs_per_round * r.fsync_p50_s
    lines = [
        Line(
            "empty round, p50", _ms(r.p50_s), f"gRPC ping {_ms(r.ping_p50_s)}", _times(r.p50_s, r.ping_p50_s), "10 ms"
        ),
        Line(
            "",
            _ms(r.p50_s),
            f"{r.fsyncs_per_round:.1f} fsyncs of {_ms(r.fsync_p50_s)} = {_ms(disk_s)}",
            _times(r.p50_s, disk_s),
        ),
        Line("empty round, p99", _ms(r.p99_s)),
        Line("round with 4 kB each way, p50", _ms(r.stepped_p50_s)),
    ]
    return asdict(r), lines


def _transfer(folder: Path, sizes: Sizes) -> tuple[dict[str, Any], list[Line]]:
    t = transfer.measure(folder, model_bytes=sizes.transfer_bytes, rounds=sizes.transfers)
    size, lines = t.model_bytes, []
    for way, ours, plain, durable, ratio in (
        ("up", t.up_s, t.bare.up_s, t.bare.up_durable_s, t.up_ratio),
        ("down", t.down_s, t.bare.down_s, t.bare.down_durable_s, t.down_ratio),
    ):
        title = f"{size / MB:.0f} MB {way}, parts of {t.bare.part_bytes >> 10} KiB"
        beside = f"stream that hashes, writes, fsyncs {_rate(size, durable)}"
        lines.append(Line(title, _rate(size, ours), beside, f"{ratio:.0%}", "85 %"))
        lines.append(Line("", _rate(size, ours), f"bare stream {_rate(size, plain)}", f"{plain / ours:.0%}"))
    return asdict(t) | {"up_ratio": t.up_ratio, "down_ratio": t.down_ratio}, lines


def _memory(folder: Path, sizes: Sizes) -> tuple[dict[str, Any], list[Line]]:
    found = [memory.measure(folder, n, model_bytes=sizes.model_bytes) for n in sizes.crowds]
    lines = [
        Line(
            f"{m.n_agents} agents upload {m.model_bytes / MB:.0f} MB at once",
            f"VmHWM {m.vm_hwm_bytes / MB:.1f} MB, RssAnon {m.rss_anon_bytes / MB:.1f} MB",
            f"before {m.rss_before_bytes / MB:.1f} MB",
            f"{m.seconds:.1f} s",
        )
        for m in found
    ]
    growth = {name: getattr(found[-1], name) - getattr(found[0], name) for name in ("vm_hwm_bytes", "rss_anon_bytes")}
    grown = f"VmHWM {growth['vm_hwm_bytes'] / MB:+.1f} MB, RssAnon {growth['rss_anon_bytes'] / MB:+.1f} MB"
    title = f"growth from {found[0].n_agents} to {found[-1].n_agents} agents"
    wanted = f"below one model, {sizes.model_bytes / MB:.0f} MB"
    lines.append(Line(title, grown, "", f"{growth['vm_hwm_bytes'] / sizes.model_bytes:.0%} of a model", wanted))
    return {"crowds": [asdict(m) for m in found], "growth": growth}, lines


def _idle(folder: Path, sizes: Sizes) -> tuple[dict[str, Any], list[Line]]:
    i = idle.measure(folder, n_hosts=sizes.idle_hosts)
    lines = [
        Line(f"{i.n_hosts} idle agents", f"{i.kb_each:.1f} kB each"),
        Line("one push while they idle", f"p50 {_ms(i.push_p50_s)}, p99 {_ms(i.push_p99_s)}"),
        Line("a push to all", f"{i.push_all_s:.3f} s"),
        Line("all join", f"{i.join_all_s:.2f} s"),
    ]
    return asdict(i), lines


def _write(path: Path, figures: dict[str, Any], sizes: Sizes) -> None:
    made = {"git": host.commit(), "versions": host.versions(), "host": host.facts(), "sizes": asdict(sizes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_at_once(path, [json.dumps(made | figures, indent=1).encode() + b"\n"])


def _show(console: Console, lines: list[Line]) -> None:
    table = Table(title="overhead", show_lines=False)
    for title in ("what", "ours", "beside", "ratio", "wanted"):
        table.add_column(title, overflow="fold")
    for line in lines:
        table.add_row(line.what, line.ours, line.beside, line.ratio, line.wanted)
    console.print(table)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"


def _times(ours: float, beside: float) -> str:
    return f"{ours / beside:.1f}x"


def _rate(size: int, seconds: float) -> str:
    return f"{size / MB / seconds:.0f} MB/s"
