"""docs/experiments/overhead.md: what the wire and the round cost, beside bare gRPC and the disk."""

import json
from pathlib import Path
from typing import Any

from benchmarks.pages._parts import NOT_RUN, grid

INTRODUCTION = """# Overhead

What a round and a transfer cost beside their yardsticks, each measured in the same run on loopback. Written by
`fed-bench page overhead` from the JSON beside it.

    fed-bench overhead --out out/overhead
    cp out/overhead/overhead.json docs/experiments/

The empty round is FedAvg of 1,000 float32 without epochs on two agent processes, meter and all fsyncs on, from one
round's report to the next. The bare streams use parts of the same size; the durable one's handler also hashes and
writes with fsync, as ours does. MB are 10^6 bytes.
"""


def write(folder: Path) -> list[Path]:
    source, path = folder / "overhead.json", folder / "overhead.md"
    body = _table(json.loads(source.read_text(encoding="utf-8"))) if source.exists() else NOT_RUN
    path.write_text(f"{INTRODUCTION}\n{body}".rstrip() + "\n", encoding="utf-8")
    return [path]


def _table(found: dict[str, Any]) -> str:  # Any: figures by part, as fed-bench overhead writes them
    r, t, idle, memory = found["round"], found["transfer"], found["idle"], found["memory"]
    bare, size, disk_s = t["bare"], t["bare"]["total_bytes"], r["fsyncs_per_round"] * r["fsync_p50_s"]
    first, last = memory["crowds"][0], memory["crowds"][-1]
    rows = [
        ("empty round, p50", _ms(r["p50_s"]), f"gRPC ping {_ms(r['ping_p50_s'])}", "10 ms"),
        ("", "", f"{r['fsyncs_per_round']:.1f} fsyncs of the disk: {_ms(disk_s)}", ""),
        ("empty round, p99", _ms(r["p99_s"]), "", ""),
        ("round with 4 kB each way, p50", _ms(r["stepped_p50_s"]), "", ""),
    ]
    for way, ours in (("up", t["up_s"]), ("down", t["down_s"])):
        durable_s, bare_s = bare[f"{way}_durable_s"], bare[f"{way}_s"]
        rate, beside = size / ours, f"durable {_rate(size / durable_s)}, bare {_rate(size / bare_s)}"
        rows.append((f"{size / 1e6:.0f} MB {way}", _rate(rate), beside, f"85 % of durable; is {durable_s / ours:.0%}"))
    growth, model = memory["growth"], first["model_bytes"]
    rows += [
        (
            f"server memory, {first['n_agents']} to {last['n_agents']} uploads of {model / 1e6:.0f} MB at once",
            f"VmHWM +{growth['vm_hwm_bytes'] / 1e6:.1f} MB, RssAnon +{growth['rss_anon_bytes'] / 1e6:.1f} MB",
            f"VmHWM {first['vm_hwm_bytes'] / 1e6:.0f} MB with {first['n_agents']}",
            "below one model",
        ),
        (f"{idle['n_hosts']} idle agents", f"{idle['kb_each']:.0f} kB each", "", ""),
        ("one push while they idle, p99", _ms(idle["push_p99_s"]), "", ""),
        ("push to all of them", _ms(idle["push_all_s"]), "", ""),
    ]
    return grid(("what", "measured", "beside", "wanted"), rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:,.0f} MB/s"
