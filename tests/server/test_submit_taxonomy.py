"""fed-server submit reads the taxonomy that a run file names: the server, elsewhere, gets edges."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from common import pb, run_taxonomy, runfile
from common.errors import ConfigError
from server import commands

TEXT = """
[run]
method = "flat_softmax"
rounds = 1

[data]
taxonomy = "tree.csv"
"""


class Told:
    """What the server would be asked."""

    def ask(self, name: str, request: pb.SubmitRunRequest, reply: Any) -> pb.RunSummary:
        self.request = request
        return pb.RunSummary(run="r", status="waiting")


def submitted(folder: Path) -> pb.SubmitRunRequest:
    (folder / "run.toml").write_text(TEXT)
    server = Told()
    arguments = argparse.Namespace(file=folder / "run.toml", name="r", watch=False, json=False)
    assert commands.submit(server, arguments) == 0  # type: ignore[arg-type]
    return server.request


def test_edges_travel_in_the_run_file(tmp_path: Path) -> None:
    (tmp_path / "tree.csv").write_text("R,a\nR,b\n")
    sent = runfile.parse(submitted(tmp_path).run_toml, "sent")
    assert run_taxonomy.edges(sent) == (("R", "a"), ("R", "b"))


def test_a_taxonomy_that_is_not_there_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read taxonomy .*tree\.csv"):
        submitted(tmp_path)
