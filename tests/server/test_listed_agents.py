"""Runs whose participants are listed round by round, in a file that comes with the run file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.server.devices import RUN
from tests.server.workshop import Workshop

LISTED = RUN.replace("[agents]", '[agents]\nselection = "lists.json"')


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with Workshop(tmp_path) as opened:
        yield opened


def test_the_listed_agents_take_part_in_each_round(shop: Workshop) -> None:
    shop.join(["a", "b", "c"])
    shop.runs.start()
    name = shop.runs.submit(LISTED, "listed", {"lists.json": b'[[2, 0], ["b", "a"], [1, 2]]'}).run
    assert shop.ended(name).status == "done", shop.summary(name).reason
    took_part = [[agent.agent for agent in report.agents] for report in shop.runs.detail(name).rounds]
    assert took_part == [["a", "c"], ["a", "b"]]
    assert "lists.json" not in shop.runs.detail(name).config_toml  # the lists themselves


def test_a_list_that_was_not_sent_is_said_before_anything_starts(shop: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"\[agents\] selection: lists.json was not sent with the run file"):
        shop.runs.submit(LISTED, "listed")
    assert shop.runs.list() == []
