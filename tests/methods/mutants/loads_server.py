"""Reaches over to the other side."""

import server  # noqa: F401
from common.methods.fedavg import (  # noqa: F401
    Config,
    Memory,
    Reply,
    State,
    Task,
    init,
    merge,
    plan,
    predict,
    result,
    work,
)
