"""fed-bench's commands for what is kept with the code: condensed results, pages, measurements that are no runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import condensed, pages, results, scoring_fedobp, theory_fedobp


def condense(folders: Sequence[Path], to: Path) -> int:
    for folder in folders:
        found = condensed.of(results.load(folder / "results.json"))
        condensed.save(found, to / f"{found.experiment}.json")
        print(to / f"{found.experiment}.json")
    return 0


def write_page(name: str, folder: Path) -> int:
    for path in pages.write(name, folder):
        print(path)
    return 0


def theory(name: str, to: Path, changed: Mapping[str, Any], *, rounds: int, n_agents: int) -> int:
    found = theory_fedobp.run(name, to, changed, rounds=rounds, n_agents=n_agents)
    print(f"{len(found.agents)} agents, {found.n_parameters} parameters: {to}")
    return 0


def scoring(to: Path) -> int:
    for timed in scoring_fedobp.run(to).timed:
        print(f"q {timed.q:g}, {timed.n_agents} agents: {timed.median_ms:.2f} ms an agent")
    print(to)
    return 0
