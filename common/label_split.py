"""Which of an agent's samples keep their labels: few do, the others are the images that it pre-trains on.

Transductive: the unlabelled images are also what is tested on (their labels are shown to the metrics only), as in
papers that report accuracy on the images of their pre-training. Inductive: the test samples are a third part, which no
training has seen.
"""

import numpy as np
from numpy.typing import NDArray

from common.run_sections import DataSection
from common.samples import Labels

Positions = NDArray[np.int64]


def few_labelled(
    data: DataSection, labels: Labels, share: Positions, rng: "np.random.Generator"
) -> tuple[Positions, Positions, Positions]:
    """The share in three: trained on with labels, tested, and without labels.

    Of n samples round((1 - labelled) n) are without labels, or tested, and the others train: 6142 and 2047 of 8189 at
    a quarter. By class unless [data] stratified is false; which of a class is drawn at random.

    Args:
        data: its `split` is not "supervised".
        labels: (n,) of the whole data set.
        share: positions of the agent's samples.
        rng: of the partition.
    """
    n_rest = round((1 - data.labelled) * len(share))
    rest = _drawn(data, labels, share, n_rest, rng)
    train = np.setdiff1d(share, rest)
    if data.split == "transductive":
        return train, rest, rest
    test = _drawn(data, labels, rest, min(n_rest, round(data.test_fraction * len(share))), rng)
    return train, test, np.setdiff1d(rest, test)


def _drawn(data: DataSection, labels: Labels, pool: Positions, n: int, rng: "np.random.Generator") -> Positions:
    """`n` of the pool, ascending; by class, each class gives its share to within one sample."""
    if not data.stratified:
        return np.sort(rng.permutation(pool)[:n])
    classes = np.unique(labels[pool])
    members = [rng.permutation(pool[labels[pool] == c]) for c in classes]
    exact = np.array([len(m) for m in members]) * n / max(1, len(pool))
    quota = np.floor(exact).astype(int)
    for i in np.argsort(quota - exact, kind="stable")[: n - quota.sum()]:  # largest remainders first
        quota[i] += 1
    return np.sort(np.concatenate([np.empty(0, np.int64), *(m[:k] for m, k in zip(members, quota, strict=True))]))
