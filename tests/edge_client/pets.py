"""A small data set and the jobs on it that the tests of an agent's work share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common import methods, models, pb, runfile, seeds
from common.blobs import Blobs
from common.method import ModelSpec
from common.payloads import Weights
from common.wire import records
from edge_client.job import AgentConfig, Job

CLASSES = ("cat", "dog", "owl")
DIM = 6
N_TRAIN, N_TEST = 40, 20
RUN = """
[run]
method = "fedavg"
rounds = 3
seed = 7
[model]
name = "linear"
input = "6"
[optimiser]
lr = 0.1
epochs = 2
batch = 8
[evaluation]
when = ["start", "trained", "merged", "finetuned"]
finetune_epochs = 3
"""


def write_data(path: Path, n_train: int = N_TRAIN) -> Path:
    """Two of the three classes, that a linear model can tell apart."""
    rng = seeds.generator(1, "test data")
    y = np.arange(n_train + N_TEST) % 2
    x = (rng.standard_normal((len(y), DIM)) + 6.0 * y[:, None] - 3).astype(np.float32)
    np.savez(path, x=x[:n_train], y=y[:n_train], x_test=x[n_train:], y_test=y[n_train:], classes=["cat", "owl"])
    return path


def job(blobs: Blobs, data: Path, changes: Mapping[str, Any] | None = None, **offer: Any) -> Job:
    file = runfile.with_overrides(runfile.parse(RUN, "test"), changes or {})
    run = blobs.put(runfile.to_blob(file, "r", CLASSES if file.model.head == "run" else None))
    specs = models.load(ModelSpec(file.model.name, file.model.options), len(CLASSES)).parameters()
    weights = Weights({name: np.zeros(spec.shape, np.float32) for name, spec in specs.items()})
    task = methods.load("fedavg").Task(weights, None)
    record = records.encode(task, blobs.put)
    key = pb.TaskKey(run="r", agent="a", kind=offer.pop("kind", pb.WORK))
    whole = pb.Offer(key=key, run=run, round=1, phase="train", task=record, **offer)
    return Job(whole, AgentConfig("a", data=str(data)))
