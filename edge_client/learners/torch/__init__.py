"""The full learner: every net and objective, on the CPU or on CUDA.

`EDGEFED_THREADS` says how many CPU threads it uses (else torch's own rule, which heeds OMP_NUM_THREADS). On one thread
of one kind of machine its results are the same bit for bit.
"""

import os
from collections.abc import Mapping

import torch

from common.errors import ConfigError
from common.method import ModelSpec, Scalar
from edge_client.learners.torch.learner import TorchLearner


def make(
    model: ModelSpec,
    n_classes: int,
    *,
    objective: str,
    objective_options: Mapping[str, Scalar],
    terms: tuple[str, ...],
) -> TorchLearner:
    _use_threads(os.environ.get("EDGEFED_THREADS", ""))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TorchLearner(model, n_classes, objective, objective_options, terms, device=device)


def _use_threads(text: str) -> None:
    if not text:
        return
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"EDGEFED_THREADS: expected a number of threads from 1, got {text!r}")
    if torch.get_num_threads() != int(text):
        torch.set_num_threads(int(text))
