"""FedOBP's theory, checked: what it costs an agent to lose its own entries, chosen by score or otherwise.

Of each agent of the last round c is its trained model and g the mean that came of the round. Measured is the loss on
the agent's training data when some entries of c are replaced by those of g, against c itself: the more it rises, the
more those entries were worth keeping. And the other way round, which is what the method does: how far the loss of g
falls when it gets those entries of c. Entry by entry, the rank correlation (Spearman) of score and true increase.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import estimate, experiment, host, results
from common import data_files, entries, files, pb, runfile, saliency, seeds
from common.average import weighted_mean
from common.method import Learner, ModelSpec
from common.payloads import Weights
from common.run_sections import RunFile
from common.samples import Samples
from edge_client import learners
from edge_client.data.named import open_named
from edge_client.data.opening import open_part
from server import selection

Flat = NDArray[np.float32]
SHARES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the model that is replaced
AT_MOST = 1000  # samples that a loss is taken over
BY_ENTRY = 120  # entries whose own increase is measured: half of the highest scores, half at random
RANDOM_DRAWS = 3
TIMES = (5, 10, 20, 50, 100)  # the mean score
ORDERS = ("score", "|c - g|", "|c|", "random")


@dataclass(frozen=True)
class Replaced:
    """Mean over agents; `rise` is of c's loss when it gets g's entries, `fall` of g's when it gets c's."""

    order: str
    k: int
    rise: float
    fall: float


@dataclass(frozen=True)
class Correlation:
    """Of entries' true increases with what orders them: the mean over agents, and the lowest and highest."""

    order: str
    entries: str  # which entries: of the highest scores, or any
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class AboveMean:
    """Entries whose score is above so many times the mean: of the agent with the fewest, and of that with the most."""

    times: int
    fewest: int
    most: int


@dataclass(frozen=True)
class Theory:
    experiment: str
    git: str
    rounds: int
    agents: tuple[str, ...]
    n_parameters: int
    loss_own: float
    loss_common: float
    replaced: tuple[Replaced, ...]
    correlations: tuple[Correlation, ...]
    above_mean: tuple[AboveMean, ...]


@dataclass(frozen=True)
class Pair:
    """An agent's model after its training, the common one after the round, and the agent's training samples."""

    agent: str
    own: Weights
    common: Weights
    samples: Samples


def run(name: str, folder: Path, changed: Mapping[str, Any], *, rounds: int, n_agents: int) -> Theory:
    stem, text = experiment.find(name)
    file = runfile.with_overrides(runfile.parse(text, name), {**changed, "run.rounds": rounds})
    learner = _learner(file)
    pairs = list(trained(file, learner, rounds))[:n_agents]
    found = measured(learner, pairs, f"{stem}, {rounds} rounds", rounds)
    text = json.dumps(results.as_json(found), indent=1, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    files.write_durably(folder / "fedobp_theory.json", [text.encode()])
    return found


def trained(file: RunFile, learner: Learner, rounds: int) -> Iterator[Pair]:
    """FedAvg in this process, with the run file's data and participants; the pairs are of its last round."""
    names = [f"{i:03}" for i in range(experiment.n_agents(file))]
    file = selection.inlined(file, _named(file))
    common, run = _first(file, learner), runfile.Run("theory", file, None, None)
    uploads: dict[str, tuple[Weights, Samples]] = {}
    for number in range(1, rounds + 1):
        uploads, training = {}, run.at(number).training
        for agent in selection.chosen(names, names, file.agents, file.run.seed, number):
            samples = open_part(file.data, pb.DataIndex(index=int(agent), of=len(names))).train
            rng = seeds.generator(file.run.seed, number, agent, "work")
            uploads[agent] = learner.fit(common, samples, training, rng=rng).weights, samples
        parts = ((agent, len(samples), weights) for agent, (weights, samples) in uploads.items())
        common = weighted_mean(parts, like=common)
    for agent, (own, samples) in uploads.items():
        yield Pair(agent, own, common, samples)


def measured(learner: Learner, pairs: list[Pair], name: str, rounds: int) -> Theory:
    by_agent = [list(_replaced(learner, pair)) for pair in pairs]
    correlated = [_correlations(learner, pair) for pair in pairs]
    losses = [(loss(learner, p.own, p.samples), loss(learner, p.common, p.samples)) for p in pairs]
    n = sum(pairs[0].own[tensor].size for tensor in _scored(learner, pairs[0].own))
    return Theory(
        experiment=name,
        git=host.commit(),
        rounds=rounds,
        agents=tuple(pair.agent for pair in pairs),
        n_parameters=n,
        loss_own=_mean([own for own, _ in losses]),
        loss_common=_mean([common for _, common in losses]),
        replaced=tuple(
            replace(rows[0], rise=_mean([r.rise for r in rows]), fall=_mean([r.fall for r in rows]))
            for rows in zip(*by_agent, strict=True)
        ),
        correlations=tuple(
            Correlation(*key, _mean(values), round(min(values), 4), round(max(values), 4))
            for key in correlated[0]
            if (values := [table[key] for table in correlated])
        ),
        above_mean=tuple(_above_mean(learner, pairs)),
    )


def loss(learner: Learner, weights: Weights, samples: Samples) -> float:
    """Mean cross-entropy over the first samples, in float64."""
    some = samples.take(np.arange(min(AT_MOST, len(samples))))
    scores = learner.scores(weights, some).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    of_label = scores[np.arange(len(some)), some.labels]
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - of_label))


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's, ties by their mean rank; 0 where one of them is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else 0.0


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], np.float64)


def _replaced(learner: Learner, pair: Pair) -> Iterator[Replaced]:
    names = _scored(learner, pair.own)
    c, g = _flat(pair.own, names), _flat(pair.common, names)
    own, common = loss(learner, pair.own, pair.samples), loss(learner, pair.common, pair.samples)
    for order in ORDERS:
        for k in sorted({max(1, round(share * c.size)) for share in SHARES}):
            draws = RANDOM_DRAWS if order == "random" else 1
            rises, falls = [], []
            for draw in range(draws):
                keys = _keys(order, c, g, seeds.generator(7, pair.agent, draw))
                bits = _bits(np.argpartition(keys, c.size - k)[c.size - k :], pair.own, names)
                rises.append(loss(learner, entries.restored(pair.own, pair.common, bits), pair.samples) - own)
                falls.append(common - loss(learner, entries.restored(pair.common, pair.own, bits), pair.samples))
            yield Replaced(order, k, _mean(rises), _mean(falls))


def _above_mean(learner: Learner, pairs: list[Pair]) -> Iterator[AboveMean]:
    scored = [saliency.scores("obd", p.own, p.common, _scored(learner, p.own)) for p in pairs]
    for times in TIMES:
        counts = [entries.count(saliency.above_mean(scores, times)) for scores in scored]
        yield AboveMean(times, min(counts), max(counts))


def _correlations(learner: Learner, pair: Pair) -> dict[tuple[str, str], float]:
    """Over single entries: each is replaced by itself, and the increase compared with what would order it."""
    names = _scored(learner, pair.own)
    c, g = _flat(pair.own, names), _flat(pair.common, names)
    own, score = loss(learner, pair.own, pair.samples), _keys("score", c, g, None)
    rng, half = seeds.generator(8, pair.agent), min(BY_ENTRY // 2, c.size // 2)
    chosen = {
        "highest scores": np.argpartition(score, c.size - half)[c.size - half :],
        "any": rng.choice(np.flatnonzero(c != g), half, replace=False),
    }
    found: dict[tuple[str, str], float] = {}
    for which, places in chosen.items():
        increases = np.array(
            [
                loss(
                    learner, entries.restored(pair.own, pair.common, _bits(places[[i]], pair.own, names)), pair.samples
                )
                - own
                for i in range(len(places))
            ]
        )
        for order in ORDERS[:3]:
            keys = _keys(order, c, g, None)[places]
            found[order, which] = rank_correlation(keys, increases)
            found[f"{order}, size of the change", which] = rank_correlation(keys, np.abs(increases))
    return found


def _keys(order: str, c: Flat, g: Flat, rng: np.random.Generator | None) -> NDArray[Any]:
    """What entries are ordered by, the highest first to be kept."""
    match order:
        case "score":
            return np.asarray(np.abs((c - g) * c))
        case "|c - g|":
            return np.asarray(np.abs(c - g))
        case "|c|":
            return np.asarray(np.abs(c))
    return (rng or np.random.default_rng()).random(c.size)


def _bits(places: NDArray[np.int64], like: Weights, names: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    flat = np.zeros(sum(like[name].size for name in names), bool)
    flat[places] = True
    found, at = {}, 0
    for name in names:
        found[name] = flat[at : at + like[name].size].reshape(like[name].shape)
        at += like[name].size
    return found


def _flat(weights: Weights, names: tuple[str, ...]) -> Flat:
    return np.concatenate([weights[name].ravel() for name in names]).astype(np.float32, copy=False)


def _scored(learner: Learner, weights: Weights) -> tuple[str, ...]:
    return saliency.scored_names({n: s for n, s in learner.parameters().items() if n in weights}, ())


def _first(file: RunFile, learner: Learner) -> Weights:
    if file.run.init == "seed":
        return learner.initial(seeds.generator(file.run.seed, "init"))
    with np.load(data_files.found(file.run.init)) as stored:
        return Weights({name: stored[name] for name in stored.files})


def _named(file: RunFile) -> dict[str, bytes]:
    name = file.agents.selection
    return {name: data_files.found(name).read_bytes()} if isinstance(name, str) and name.endswith(".json") else {}


def _learner(file: RunFile) -> Learner:
    spec = ModelSpec(file.model.name, file.model.options)
    n_classes = len(open_named(file.data.name).classes)
    return learners.make(estimate.learner_of(file), spec, n_classes, objective=file.objective.name)


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 7)
