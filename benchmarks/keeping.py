"""fed-bench's commands for what is kept with the code: condensed results, pages, measurements that are no runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import condensed, experiment, pages, results, scoring_fedobp, theory_fedobp
from benchmarks.experiment import Planned
from common import runfile
from common.errors import UnknownName


def condense(folders: Sequence[Path], to: Path) -> int:
    """Into each experiment's file, beside the runs that it has of earlier checkouts."""
    for folder in folders:
        found = condensed.of(results.load(folder / "results.json"))
        path = to / f"{found.experiment}.json"
        earlier = condensed.load(path).runs if path.exists() else ()
        condensed.save(condensed.joined(found, earlier, _planned(found.experiment)), path)
        print(path)
    return 0


def _planned(name: str) -> list[Planned]:
    """All runs of an experiment that is shipped; of another, nothing is known here."""
    try:
        stem, text = experiment.find(name)
    except UnknownName:
        return []
    return [plan for chain in experiment.planned(runfile.parse(text, stem)) for plan in chain]


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
