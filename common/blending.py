"""How much the nearest class mean shall count beside an encoder's text scores, by samples that were not trained on."""

import numpy as np

from common import prototypes
from common.method import Learner, Scores
from common.payloads import Prototypes, Weights
from common.samples import Labels, Samples

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def both(
    learner: Learner, weights: Weights, inputs: Samples, known: Prototypes | None, scale: float
) -> tuple[Scores, Scores, Prototypes | None]:
    """Scores (n, n_classes) of the texts and of the means, and the means."""
    near = prototypes.nearest(learner.embed(weights, inputs), known, learner.n_classes, scale)
    return learner.scores(weights, inputs), near, known


def best_share(text: Scores, near: Scores, known: Prototypes | None, labels: Labels) -> float:
    """The one of SHARES with the smallest cross-entropy on these samples, the least of equal ones.

    Cross-entropy, because few samples give few different accuracies, and nearly all shares would tie. A class without
    a mean keeps its text score.
    """
    nats = [_nats(prototypes.blended(text, near, known, share), labels) for share in SHARES]
    return SHARES[int(np.argmin(nats))]


def _nats(scores: Scores, labels: Labels) -> float:
    z = scores.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).sum())
