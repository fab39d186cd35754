"""What an agent keeps of its own weights when it takes the common ones over."""

import numpy as np

from common.payloads import Array, Weights


def mixed(common: Weights, last: Weights, *, first_share: float, scale: float) -> tuple[Weights, float]:
    """mu own + (1 - mu) common, with mu = min(scale * distance, 1), and the scale.

    Source: Zhuang et al., FedEMA, ICLR 2022, equations 4 to 6; `first_share` is its tau, `scale` its lambda. Deviation:
    the distance is over all parameters. What is not a parameter is taken from the common weights.

    Args:
        common: what the server sent.
        last: what the agent trained last.
        first_share: mu the first time; from then on the scale is what gave that.
        scale: as it was given back the last time, 0 the first.
    """
    params = [name for name in common if common.kind(name) == "param"]
    gaps = {name: np.subtract(last[name], common[name], dtype=np.float64) for name in params}
    distance = float(np.sqrt(sum(float((gap * gap).sum()) for gap in gaps.values())))
    scale = scale or (first_share / distance if distance else 0.0)
    share = min(scale * distance, 1.0)
    arrays: dict[str, Array] = {}
    for name, gap in gaps.items():
        arrays[name] = np.add(common[name], share * gap, dtype=np.float64).astype(common[name].dtype)
    return common.updated(arrays), scale
