"""Peak memory of an accelerator, when a learner has loaded the library that uses it; nothing is loaded for this."""

import sys
from typing import Any


def forget_peak() -> None:
    """Start the peak again from what is allocated now."""
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Most that tensors took since `forget_peak`; 0 without an accelerator."""
    cuda = _cuda()
    return 0 if cuda is None else int(cuda.max_memory_allocated())


def _cuda() -> Any:  # Any: a module that may not be installed
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
