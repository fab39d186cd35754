"""The taxonomy of an experiment's run, read before it is submitted: of a file, or of the data set's coarse labels."""

from functools import lru_cache

from common import run_taxonomy
from common.run_sections import RunFile
from common.taxonomy import Edge
from edge_client.data import named


def inlined(file: RunFile) -> RunFile:
    """The run file with edges in it, and nothing left for the server to read."""
    if file.data.taxonomy == run_taxonomy.COARSE:
        return run_taxonomy.with_edges(file, _coarse(file.data.name))
    return run_taxonomy.inlined(file)


@lru_cache(maxsize=4)
def _coarse(name: str) -> tuple[Edge, ...]:
    return named.coarse_edges(name)
