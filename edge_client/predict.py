"""`edge-agent predict`: what an agent's model of a run says of new images. Nothing is asked of the server.

The model is that of the last task that the agent was given in the run, with the memory that it had then: where the run
evaluates its agents at its end, the one that was evaluated. Methods that plan evaluations of their own have no other
task to predict with. A personal model is in no other place than on its device.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import pb
from common.blobs import Blobs
from common.errors import EXIT_STATE, ConfigError, LocalFault
from common.method import Scores
from common.metrics import probabilities
from common.samples import Samples
from edge_client.data.agent_data import AgentData
from edge_client.data.inputs import open_inputs
from edge_client.folder import Folder
from edge_client.job import AgentConfig, Job
from edge_client.memory import Archive
from edge_client.setup import Wishes, agents_of, check_learner, host_name
from edge_client.work import predictions
from edge_client.workplace import Workplace

OWN = "personal"  # the reading of an agent's own model
DECIDED = 1e-9  # what all other classes have together, where a decoder names one class


@dataclass(frozen=True)
class Prediction:
    """Classes of one sample, the most probable first, each with its probability.

    None where the method only decides, as experts do that are asked from the root down.
    """

    input: str
    classes: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Predicted:
    run: str
    round: int
    agent: str
    reading: str  # OWN, or a model that all agents have
    predictions: tuple[Prediction, ...]


def predict(wishes: Wishes, *, state: Path, run: str | None, files: Sequence[Path], top: int) -> Predicted:
    """Of each file, or each image of a folder, the `top` classes; `run` None: of the run it worked on last.

    Raises:
        ConfigError: the agent has no such run, or the files do not fit its model.
    """
    check_learner(wishes.learner)
    agents = agents_of(wishes, host_name(wishes.name))
    if len(agents) != 1:
        raise ConfigError(f"predict takes one agent, so one --data: got {', '.join(agent.name for agent in agents)}")
    last = _last(state, agents[0].name, run)
    key = last.offer.key
    names: list[str] = []

    def inputs(data: AgentData, shape: tuple[int, ...] | None) -> Samples:
        found, samples = open_inputs(files, data.train.source, shape)
        names.extend(found)
        return samples

    classes, readings = _predicted(last, agents[0], state, inputs)
    if not readings:
        raise ConfigError(
            f"the last task of run {key.run} that agent {key.agent} had is none to predict with; give the run an"
            f" [evaluation] of all agents",
            exit_code=EXIT_STATE,
        )
    reading = OWN if OWN in readings else next(iter(readings))
    rows = zip(names, _shares(readings[reading]), strict=True)
    return Predicted(
        key.run, last.offer.round, key.agent, reading, tuple(_best(name, row, classes, top) for name, row in rows)
    )


def tell(predicted: Predicted, *, as_json: bool, write: Callable[[str], None]) -> None:
    if as_json:
        write(json.dumps(asdict(predicted)))
        return
    whose = "its own model" if predicted.reading == OWN else "the common model"
    write(f"run {predicted.run}, round {predicted.round}, agent {predicted.agent}: {whose}")
    width = max((len(p.input) for p in predicted.predictions), default=0)
    for p in predicted.predictions:
        write(f"{p.input:<{width}}  " + ", ".join(_told(*one) for one in p.classes))


def _told(name: str, share: float | None) -> str:
    return name if share is None else f"{name} {100 * share:.1f} %"


def _last(state: Path, agent: str, run: str | None) -> pb.LastTask:
    there = Archive(Folder(state, "").memory).last_tasks() if state.is_dir() else []
    found = [last for last in there if last.offer.key.agent == agent]
    for last in found:
        if run in (None, last.offer.key.run):
            return last
    known = ", ".join(dict.fromkeys(last.offer.key.run for last in found)) or "none yet"
    wanted = "a run" if run is None else f"run {run!r}"
    raise ConfigError(
        f"agent {agent} has no model of {wanted} in state folder {state}; give the --name, --data and --state-dir that"
        f" it ran with: its runs here are {known}",
        exit_code=EXIT_STATE,
    )


def _predicted(
    last: pb.LastTask, agent: AgentConfig, state: Path, inputs: Callable[[AgentData, tuple[int, ...] | None], Samples]
) -> tuple[tuple[str, ...], dict[str, Scores]]:
    job = Job(last.offer, agent, last.memory if last.HasField("memory") else None)
    place = Workplace(Blobs(Folder(state, "").blobs))
    try:
        return predictions(job, place, inputs)
    except LocalFault as fault:
        raise ConfigError(
            f"the model of run {last.offer.key.run} is not whole on this device any more, which keeps those of the"
            f" runs that it worked on last; let it take part again: {fault}",
            exit_code=EXIT_STATE,
        ) from fault


def _shares(scores: Scores) -> NDArray[np.float64]:
    """Probabilities: the scores' softmax, as the metric "loss" takes it; votes, which add up to one, as they are."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1):
        return scores.astype(np.float64)
    return probabilities(scores)


def _best(name: str, row: NDArray[np.float64], classes: tuple[str, ...], top: int) -> Prediction:
    order = np.argsort(-row, kind="stable")[:top]
    if len(row) > 2 and row.max() > 1 - DECIDED and np.ptp(np.delete(row, order[0])) == 0:
        return Prediction(name, ((classes[order[0]], None),))
    return Prediction(name, tuple((classes[i], float(row[i])) for i in order))
