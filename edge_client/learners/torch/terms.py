"""Loss-space terms by name: each turns the term's arrays into a function of what the net saw, a scalar."""

from collections.abc import Callable

import numpy as np
import torch

from common.method import Term
from common.objectives import Seen
from edge_client.learners import checks

Loss = Callable[[Seen], torch.Tensor]


def prototypes(term: Term, n_classes: int, dim: int, device: torch.device) -> Loss:
    """Mean over the samples whose class has a prototype of ||embedding - prototype||^2, summed over dimensions.

    Source: the local regulariser of Tan et al., FedProto, AAAI 2022, with the squared Euclidean distance.
    """
    ids, given = checks.prototypes(term, n_classes, dim)
    table = np.full(n_classes + 1, -1, np.int64)  # the last row is for samples without a label, -1
    table[ids] = np.arange(len(ids))
    row = torch.from_numpy(table).to(device)
    vectors = torch.from_numpy(given if len(given) else np.zeros((1, dim), np.float32)).to(device)

    def loss(seen: Seen) -> torch.Tensor:
        rows = row[seen.labels]
        has = rows >= 0
        distances = (seen.embeddings[0] - vectors[rows.clamp(min=0)]).square().sum(1)
        return (distances * has).sum() / has.sum().clamp(min=1)

    return loss


TERMS: dict[str, Callable[[Term, int, int, torch.device], Loss]] = {"prototypes": prototypes}
