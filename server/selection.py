"""Who takes part in a round: seeded over the sorted names, or as the run file lists them."""

import json
from collections.abc import Collection, Mapping, Sequence

from common import runfile, seeds
from common.errors import ConfigError
from common.run_sections import AgentsSection, RunFile


def chosen(
    names: Collection[str], online: Collection[str], agents: AgentsSection, seed: int, round_number: int
) -> tuple[str, ...]:
    """The agents of this round, sorted by name; empty when fewer than `min` of them are there.

    All phases of a round draw the same order. Names that are not online are passed over, so that a device that is
    gone for good costs no round its deadline; while all are online the draw depends on the seed alone. `names` are all
    agents that are ready for the run, `online` those of them that can be offered a task now.
    """
    order = sorted(names)
    if isinstance(agents.selection, str):
        generator = seeds.generator(seed, round_number, "selection")
        order = [order[i] for i in generator.permutation(len(order))]
        n = asked(agents, len(order))
    else:
        order = _listed(agents.selection, order, round_number)
        n = len(order)
    there = [name for name in order if name in online]
    return tuple(sorted(there[:n])) if len(there) >= min(agents.min, n or 1) else ()


def inlined(file: RunFile, files: Mapping[str, bytes]) -> RunFile:
    """The run file with the lists themselves where it names the .json that has them; `files` came with it.

    Raises:
        ConfigError: the file was not sent, or holds no lists of agents.
    """
    name = file.agents.selection
    if not isinstance(name, str) or name == "seeded":
        return file
    if name not in files:
        raise ConfigError(f"[agents] selection: {name} was not sent with the run file")
    try:
        lists = json.loads(files[name])
    except ValueError as error:
        raise ConfigError(f"[agents] selection: {name} is no JSON: {error}") from error
    if not isinstance(lists, list) or not all(isinstance(one, list) for one in lists):
        raise ConfigError(f"[agents] selection: {name} must hold one list of agents per round, [[0, 4], [1, 2], …]")
    return runfile.with_overrides(file, {"agents.selection": lists[: file.run.rounds]}, name)


def wanted(agents: AgentsSection, n_ready: int) -> int:
    """How many replies make a step complete."""
    return min(n_ready, max(agents.min, round(agents.fraction * n_ready)))


def asked(agents: AgentsSection, n_ready: int) -> int:
    """How many agents are offered a task, with those asked beyond the wanted ones."""
    return min(n_ready, round(wanted(agents, n_ready) * (1 + agents.over_selection)))


def _listed(lists: Sequence[Sequence[str | int]], names: list[str], round_number: int) -> list[str]:
    """The round's own list (the last one again after the end): names, or places among the sorted names."""
    if not lists:
        raise ConfigError("[agents] selection is an empty list; give one list of agents per round, or 'seeded'")
    listed: list[str] = []
    for entry in lists[min(round_number, len(lists)) - 1]:
        if isinstance(entry, str):
            listed.append(entry)
        elif 0 <= entry < len(names):
            listed.append(names[entry])
        else:
            raise ConfigError(
                f"[agents] selection names agent number {entry} in round {round_number}, expected 0 to {len(names) - 1}"
            )
    return list(dict.fromkeys(listed))
