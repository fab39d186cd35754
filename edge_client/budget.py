"""The memory budget of a task: what it may map beyond what its process has when it is idle and ready for such tasks.

Libraries are no part of it: importing torch maps some 700 MB, and a budget of a small board is a tenth of that. So
what the task's learner needs is loaded, and its pools filled, before the limit is set. Nor is opening a named data set,
which is a benchmark's and not a device's own; the samples that a task reads from it are.
"""

import importlib
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from common import models
from common.errors import FederationError
from common.meter import trim_heap
from common.method import ModelSpec, Training
from common.run_sections import DataSection
from common.samples import from_arrays
from edge_client import features, learners, prepare
from edge_client.job import Job
from edge_client.workplace import Workplace

_EXERCISE = ModelSpec("mlp", {"input": "256", "hidden": 256})
_exercised: set[str] = set()  # learners
_opened: list[DataSection] = []


@contextmanager
def kept(job: Job, place: Workplace) -> Iterator[None]:
    """Inside, allocations beyond the job's budget raise MemoryError before the device runs out for everyone.

    For this process, which does one task at a time, in the thread that calls. Only Linux counts what is mapped, and
    keeps to it. A process in which an allocation has failed is no good any more: oneDNN, which convolves for torch,
    remembers it, and fails at everything from then on.
    """
    if job.memory_limit_bytes is None:
        yield
        return
    with suppress(FederationError):  # the task itself will say what is wrong with it
        make_ready(job, place)
    trim_heap()
    mapped = mapped_bytes()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if mapped is not None:
        soft = mapped + job.memory_limit_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def make_ready(job: Job, place: Workplace) -> None:
    """Load what the learner of this job needs, fill its pools, and open the run's named data."""
    run = place.run_of(job.offer)
    spec = run.at(max(1, job.offer.round))
    models.options_of(spec.model)  # imports its net
    name = learners.choose(job.agent.learner, spec.model, objective=spec.training.objective)
    if name == "onnx" or features.needs_features(spec.model):
        importlib.import_module("onnxruntime")
    _exercise("torch" if name == "torch" else "numpy")
    if job.agent.named and run.file.data not in _opened:
        prepare.open_data(job, run, spec)
        _opened.append(run.file.data)


def mapped_bytes() -> int | None:
    """Writable private memory of this process, which is what RLIMIT_DATA limits; None where the system does not say."""
    with suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return None


def _exercise(learner: str) -> None:
    """A training of nothing: libraries are imported, threads have their stacks, and linear algebra its buffers."""
    if learner in _exercised:
        return
    _exercised.add(learner)
    inner = learners.make(learner, _EXERCISE, 2)
    samples = from_arrays(np.zeros((256, 256), np.float32), np.arange(256) % 2, 2)
    rng = np.random.default_rng(0)
    inner.fit(inner.initial(rng), samples, Training(lr=0.0, batch=256, epochs=1), rng=rng)
    meter = threading.Thread(target=_idle)  # a stack stays for the next thread, and the meter starts one
    meter.start()
    meter.join()


def _idle() -> None:
    pass
