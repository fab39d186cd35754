"""fed-bench: experiments, local fleets, reports. The only package that sees both sides."""

from pathlib import Path

# One thread each, or the processes of a fleet fight over the cores and no timing means anything.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PAGES = Path("docs/experiments")  # of this repository: what was found, and the pages written from it
