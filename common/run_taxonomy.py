"""The taxonomy of a run: edges in its file, or a file of edges that whoever submits the run reads.

A server and its agents see edges only, so that they need no file and none can differ.
"""

from collections.abc import Iterable
from pathlib import Path

from common import data_files, runfile, taxonomy
from common.errors import ConfigError
from common.run_sections import RunFile
from common.taxonomy import Edge

COARSE = "coarse"  # the data set's own coarse labels, which only a program that opens data sets can read


def inlined(file: RunFile, beside: Path | None = None) -> RunFile:
    """The run file with the edges of its taxonomy in it, read from the file that it names, if it names one.

    The path is taken from `beside` (else the working folder), or from the data folder. Edges that lead only to
    [data] without are left out.

    Raises:
        ConfigError: the file cannot be read, or holds no edges.
    """
    named = file.data.taxonomy
    if named is None or named == COARSE:
        return file
    if isinstance(named, str):
        return with_edges(file, taxonomy.load(data_files.found(named, beside)))
    return with_edges(file, edges(file) or ()) if file.data.without else file


def with_edges(file: RunFile, found: Iterable[Edge]) -> RunFile:
    """The run file with these edges, less those that lead only to classes which it leaves out.

    [data] without may name nodes too: all classes under them.
    """
    whole = tuple(found)
    gone = taxonomy.leaves_under(whole, file.data.without)
    changes = {"data.taxonomy": taxonomy.without(whole, gone), "data.without": gone}
    return runfile.with_overrides(file, changes, "[data] taxonomy")


def edges(file: RunFile) -> tuple[Edge, ...] | None:
    """The edges in a run file.

    Raises:
        ConfigError: it names a file, or the data set's labels, and nobody has read them.
    """
    given = file.data.taxonomy
    if isinstance(given, str):
        raise ConfigError(
            f"[data] taxonomy = {given!r} was not read before the run was submitted; fed-bench reads"
            f" {COARSE!r} and files, fed-server submit reads files; or give (parent, child) pairs"
        )
    return None if given is None else tuple((edge[0], edge[1]) for edge in given)
