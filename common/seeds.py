"""Random streams, derived and never shared: SHA-256 of (run seed, round, agent, purpose) seeds each.

So a result does not depend on which process carries an agent, on the order of arrival, or on a restart.
"""

import hashlib

import numpy as np


def generator(seed: int, *path: str | int) -> "np.random.Generator":
    """A generator for one purpose; `path` names it, for example (round, agent, "work")."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))
