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
    row, vectors = _table(term, n_classes, dim, device)

    def loss(seen: Seen) -> torch.Tensor:
        rows = row[seen.labels]
        has = rows >= 0
        distances = (seen.embeddings[0] - vectors[rows.clamp(min=0)]).square().sum(1)
        return (distances * has).sum() / has.sum().clamp(min=1)

    return loss


def prototype_means(term: Term, n_classes: int, dim: int, device: torch.device) -> Loss:
    """Sum over the batch's classes that have a prototype of ||mean embedding - prototype||^2, over dimensions.

    Source: the literal L_reg(mu_i, g) of Park and Lee, 2026, with the means of a batch, for those of all samples would
        take a pass through the data in every step.
    """
    row, vectors = _table(term, n_classes, dim, device)

    def loss(seen: Seen) -> torch.Tensor:
        rows = row[seen.labels]
        has = rows >= 0
        rows, found = rows[has], seen.embeddings[0][has]
        sums = torch.zeros_like(vectors).index_add(0, rows, found)
        counts = torch.bincount(rows, minlength=len(vectors)).unsqueeze(1)
        distances = (sums / counts.clamp(min=1) - vectors).square().sum(1)
        return (distances * (counts[:, 0] > 0)).sum()

    return loss


def _table(term: Term, n_classes: int, dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """label -> row of the prototypes, -1 for none; the prototypes (at least one row)."""
    ids, given = checks.prototypes(term, n_classes, dim)
    table = np.full(n_classes + 1, -1, np.int64)  # the last row is for samples without a label, -1
    table[ids] = np.arange(len(ids))
    vectors = given if len(given) else np.zeros((1, dim), np.float32)
    return torch.from_numpy(table).to(device), torch.from_numpy(vectors).to(device)


TERMS: dict[str, Callable[[Term, int, int, torch.device], Loss]] = {
    "prototypes": prototypes,
    "prototype_means": prototype_means,
}
