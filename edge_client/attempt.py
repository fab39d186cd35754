"""The outermost loop of one task: whatever it raises becomes a sentence for the server."""

import logging

from common.errors import ConfigError, FederationError, UnknownName
from edge_client.job import Failed, Job, Outcome, Progress
from edge_client.work import run_job
from edge_client.workplace import Workplace

ENDED = "the task was ended before it was done"
# what torch (its CPU and CUDA allocators), C++ libraries and the system say where Python has MemoryError
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "Cannot allocate memory")
# what oneDNN says then, and perhaps of other things: it counts only where the task had a limit
UNDER_A_LIMIT = ("could not create a primitive", "could not execute a primitive")
log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Raised through the task by its progress call, when it is to end."""


def attempt(job: Job, place: Workplace, progress: Progress, *, isolated: bool = False) -> Outcome:
    """The outcome of a job, whatever happens in it."""
    try:
        return run_job(job, place, progress, isolated=isolated)
    except Cancelled:
        return Failed(ENDED)
    except (ConfigError, UnknownName) as error:
        return Failed(str(error), cannot=True)
    except FederationError as error:
        return Failed(str(error))
    except MemoryError as error:
        return Failed(out_of_memory(job, str(error)), cannot=True)
    except Exception as error:
        texts = OUT_OF_MEMORY if job.memory_limit_bytes is None else OUT_OF_MEMORY + UNDER_A_LIMIT
        if isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in texts):
            return Failed(out_of_memory(job, str(error).partition("\n")[0]), cannot=True)
        log.exception("task failed run=%s agent=%s", job.offer.key.run, job.offer.key.agent)
        return Failed(f"{type(error).__name__}: {error}")


def out_of_memory(job: Job, how: str) -> str:
    limit = job.memory_limit_bytes
    budget = "this device has" if limit is None else f"its budget of {limit / 1e6:.0f} MB above the idle process allows"
    return (
        f"run {job.offer.key.run}: the task of agent {job.agent.name} needs more memory than {budget}; "
        f"use a smaller model or batch, or a larger --memory-budget: {how or 'out of memory'}"
    )
