"""How long an experiment will take, said before it starts: from its own finished runs, else from a measured batch."""

import time
from collections.abc import Iterable

import numpy as np

from benchmarks.experiment import Chain, Planned, n_agents
from benchmarks.results import Results
from common import models, objectives
from common.method import ModelSpec, Training
from common.run_sections import RunFile
from common.samples import view
from common.seeds import generator
from edge_client import learners
from edge_client.data.named import open_named
from edge_client.data.pool import Pool, first_classes
from edge_client.features import feature_source, needs_features
from edge_client.prepare import model_input

MEASURE_S = 0.3
START_S = 4.0  # until server and agents are there
TORCH_S = 8.0  # until the agents have loaded torch, once
EXPORTED_S = 2e-4  # a sample through an exported backbone and its head, roughly
HEAD_S = 2e-5  # a sample through a linear head on features that are kept, roughly
ROUND_S = 0.1  # what a round costs beside training, roughly: offers, transfers, fsyncs, evaluation of a small model


def seconds(chains: Iterable[Chain], found: Results, n_processes: int) -> float:
    """A guess, good to a factor of two or so; finished runs of the same row make it better."""
    per_sample: dict[tuple[object, ...], float] = {}
    plans = [plan for chain in chains for plan in chain]
    runs_s = sum(_run(plan, found, n_processes, per_sample) for plan in plans)
    return START_S + TORCH_S * any(learner_of(plan.file) == "torch" for plan in plans) + runs_s


def learner_of(file: RunFile) -> str:
    """The learner that agents will take.

    Raises:
        ConfigError: it is not installed.
    """
    spec = ModelSpec(file.model.name, file.model.options)
    return learners.choose("auto", spec, objective=file.objective.name)


def text(total_s: float) -> str:
    if total_s < 90:
        return f"about {max(total_s, 1):.0f} s"
    minutes = total_s / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def _run(plan: Planned, found: Results, n_processes: int, per_sample: dict[tuple[object, ...], float]) -> float:
    before = [r.seconds for r in found.runs if (r.label, r.stage) == (plan.label, plan.stage) and r.status == "done"]
    if before:
        return sum(before) / len(before)
    file = plan.file
    shape = model_input(ModelSpec(file.model.name, file.model.options))
    names = file.data.tasks or (file.data.name,)
    pools = [first_classes(open_named(name, shape), file.data.n_classes) for name in names]
    key = (file.model.name, str(file.model.options), file.objective.name, file.optimiser.batch, pools[0].name)
    if key not in per_sample:
        per_sample[key] = _sample_seconds(file, pools[0])
    each, once = per_sample[key], 0.0
    if _keeps_features(file):  # all that is at hand goes through the backbone once, and not back
        each, once = HEAD_S, per_sample[key] * sum(pool.n_train + (pool.n_test or 0) for pool in pools) / 3
    in_rounds = file.run.rounds * _samples_per_round(file, pools) * each
    return file.run.rounds * ROUND_S + (in_rounds + once) / max(n_processes, 1)


def _keeps_features(file: RunFile) -> bool:
    """Of a frozen backbone, as method task_heads does."""
    return file.method.get("tune") == "head" and file.method.get("features", "cached") == "cached"


def _samples_per_round(file: RunFile, pools: list[Pool]) -> float:
    """Samples that all agents go through in a round; one of evaluation counts as a third of one of training."""
    data, evaluation = file.data, file.evaluation
    at_hand = float(sum(min(pool.n_train, data.limit or pool.n_train) + (pool.n_test or 0) for pool in pools))
    trained, test_share = _shares(file)
    to_train = at_hand * trained
    if data.parted_among is not None:
        at_hand *= n_agents(file) / data.parted_among
        to_train *= n_agents(file) / data.parted_among
    if data.shots is not None:
        to_train = float(sum(data.shots * len(pool.classes) for pool in pools))
    training = to_train * file.agents.fraction * file.optimiser.epochs
    within = evaluation.every if evaluation.every_task is None else evaluation.every_task
    if within:
        n_within = len({"start", "trained"} & set(evaluation.when))
        training += at_hand * test_share * file.agents.fraction * n_within / 3 / within
    if not evaluation.every:
        return training
    share = 1.0
    if isinstance(evaluation.agents, int):
        share = min(1.0, evaluation.agents / n_agents(file))
    elif evaluation.agents == "sampled":
        share = file.agents.fraction
    tested = at_hand * test_share * share * len({"merged", "finetuned"} & set(evaluation.when)) / 3
    tuned = to_train * share * evaluation.finetune_epochs * ("finetuned" in evaluation.when)
    return training + (tested + tuned) / evaluation.every


def _shares(file: RunFile) -> tuple[float, float]:
    """Of an agent's samples: those that train, and those that test."""
    data = file.data
    if data.split == "supervised":
        return 1 - data.test_fraction, data.test_fraction
    unlabelled = 1 - data.labelled - (data.test_fraction if data.split == "inductive" else 0)
    tested = data.test_fraction if data.split == "inductive" else unlabelled
    return (data.labelled if objectives.load(file.objective.name).LABELS else unlabelled), tested


def _sample_seconds(file: RunFile, pool: Pool) -> float:
    """Seconds that one training sample costs here, measured on two batches of the data set, over and over."""
    objective = file.objective
    if file.model.name == models.EXPORTED:
        return EXPORTED_S  # its graph comes with the run
    spec = models.with_classes(ModelSpec(file.model.name, file.model.options), pool.classes)
    learner = learners.make(
        learner_of(file),
        spec,
        len(pool.classes),
        objective=objective.name,
        objective_options=objective.options,
    )
    rng = generator(0, "estimate")
    source = feature_source(pool.source, spec) if needs_features(spec) else pool.source
    samples = view(source, len(pool.classes)).take(np.arange(min(2 * file.optimiser.batch, pool.n_train)))
    training = Training(objective.name, objective.options, lr=0.0, batch=file.optimiser.batch)
    weights = learner.initial(rng)
    learner.fit(weights, samples, training, rng=rng)  # warms the libraries up
    begun, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < MEASURE_S:
        learner.fit(weights, samples, training, rng=rng)
        done += len(samples)
    return spent / done
