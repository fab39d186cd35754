"""What an agent says of a run before it trains: its data under the run's class list, or why it cannot take part."""

from pathlib import Path
from typing import Any

from common import models
from common.errors import ConfigError, RemoteFault
from common.method import ModelSpec, RunSpec
from common.runfile import Run
from edge_client import learners
from edge_client.data import opening
from edge_client.data.agent_data import AgentData, facts, under
from edge_client.features import encoded
from edge_client.job import Job, PreparedData
from edge_client.workplace import Workplace


def prepared(job: Job, place: Workplace) -> PreparedData:
    """Looks at everything that could make a task impossible: learner, data, classes, budget, shapes; trains nothing."""
    run = place.run_of(job.offer)
    spec = run.at(max(1, job.offer.round))
    learners.choose(job.agent.learner, spec.model, objective=spec.training.objective)
    data = open_data(job, run, spec)
    _check_budget(job, spec, len(data.classes))
    wanted = model_input(spec.model)
    if wanted is not None:
        opening.check_shape(data, wanted, spec.model.name)
    return PreparedData(facts(data, share_counts=job.agent.share_counts), data.classes)


def _check_budget(job: Job, spec: RunSpec[Any], n_classes: int) -> None:
    """Refuses a model that alone takes more than a task may use above the idle process; batches come on top."""
    limit = job.memory_limit_bytes
    if limit is None:
        return
    training = spec.training
    options = training.objective_options
    model = models.load(spec.model, n_classes, objective=training.objective, objective_options=options)
    needed = models.training_bytes(model.parameters(), training)
    if needed > limit:
        raise ConfigError(
            f"model {spec.model.name!r} does not fit agent {job.agent.name}: training it takes {needed / 1e6:.1f} MB "
            f"for parameters, gradients and optimiser state, and the agent's memory budget is {limit / 1e6:.1f} MB; "
            f"choose a smaller model or raise the budget"
        )


def open_data(job: Job, run: Run, spec: RunSpec[Any]) -> AgentData:
    """The agent's data under the run's classes, as the model sees them."""
    return encoded(open_as_they_are(job, run, spec), spec.model)


def open_as_they_are(job: Job, run: Run, spec: RunSpec[Any]) -> AgentData:
    """Likewise, before any encoder."""
    section, shape = run.file.data, model_input(spec.model)
    if job.agent.named:
        if not job.offer.HasField("data"):
            raise RemoteFault(f"run {run.name} gave agent {job.agent.name} no place among those with named data")
        data = opening.open_part(section, job.offer.data, shape)
    elif job.agent.data is not None:
        data = opening.open_path(Path(job.agent.data), job.agent.name, section, shape)
    else:
        raise ConfigError(f"agent {job.agent.name} has no data: start it with --data PATH or --data named")
    return under(data, None if spec.head == "agent" else spec.classes)


def model_input(model: ModelSpec) -> tuple[int, ...] | None:
    text = getattr(models.options_of(model), "input", None)
    return None if text is None else models.shape_of(text)
