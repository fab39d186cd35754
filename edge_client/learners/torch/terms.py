"""Loss-space terms by name: each turns the term's arrays into a function of what the net saw, a scalar."""

from collections.abc import Callable

import numpy as np
import torch

from common.method import Term
from common.objectives import Seen

Loss = Callable[[Seen], torch.Tensor]


def prototypes(term: Term, n_classes: int, device: torch.device) -> Loss:
    """Mean over the samples whose class has a prototype of ||embedding - prototype||^2, summed over dimensions.

    Source: Tan et al., FedProto, AAAI 2022, eq. 6. Deviation: summed over dimensions, as the norm in the text says.

    Arrays: `class_ids` (k,), `vectors` (k, dim).
    """
    vectors = torch.from_numpy(np.array(term.arrays["vectors"], np.float32)).to(device)
    row = torch.full((n_classes,), -1, dtype=torch.int64)
    row[torch.from_numpy(np.array(term.arrays["class_ids"], np.int64))] = torch.arange(len(vectors))
    row = row.to(device)

    def loss(seen: Seen) -> torch.Tensor:
        rows = row[seen.labels]
        has = rows >= 0
        distances = (seen.embeddings[0] - vectors[rows.clamp(min=0)]).square().sum(1)
        return (distances * has).sum() / has.sum().clamp(min=1)

    return loss


TERMS: dict[str, Callable[[Term, int, torch.device], Loss]] = {"prototypes": prototypes}
