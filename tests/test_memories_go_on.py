"""A run that goes on with the memories of an earlier one, in real processes."""

from pathlib import Path

import grpc
import pytest

from common import pb
from tests.processes import Federation, federation, write_data

RUN = """
[run]
method = "{method}"
rounds = {rounds}
{start}
[model]
name = "mlp"
input = "6"
hidden = 8
[optimiser]
lr = 0.1
batch = 8
[agents]
min = 2
[data]
classes = ["0", "1", "2"]
[evaluation]
every = 1
when = ["start", "merged"]
"""
GOES_ON = 'init_from = "{}"\nmemory_from = "init_from"'


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory):
    with federation(tmp_path_factory.mktemp("federation")) as fleet:
        fleet.server()
        for i, name in enumerate(("a", "b")):
            fleet.agent(name, write_data(fleet.folder / f"{name}.npz", 30, seed=i + 1))
        fleet.submit(RUN.format(method="fedper", rounds=3, start=""), "before")
        fleet.finished("before")
        yield fleet


def losses(reports: list[pb.AgentReport], moment: str) -> dict[str, float]:
    return {
        agent.agent: evaluation.sums["loss"]
        for agent in reports
        for evaluation in agent.evaluations
        if evaluation.moment == moment
    }


def test_agents_begin_with_the_heads_that_they_had_at_the_end(fleet: Federation) -> None:
    ended = losses(list(fleet.show("before").evaluations[-1].agents), "merged")
    assert len(ended) == 2
    for name, start in (("same", GOES_ON.format("before")), ("fresh", 'init_from = "before"')):
        fleet.submit(RUN.format(method="fedper", rounds=1, start=start), name)
        begun = losses(list(fleet.finished(name).rounds[0].agents), "start")
        assert (begun == ended) == (name == "same"), (begun, ended)


def test_what_the_last_round_left_counts_though_no_offer_came_after_it(fleet: Federation) -> None:
    """Without an evaluation nothing has told the agent that its last reply was merged, until the next run does."""
    quiet = RUN.format(method="fedper", rounds=2, start="").replace("every = 1", "every = 0")
    fleet.submit(quiet, "quiet")
    fleet.finished("quiet")
    fleet.submit(RUN.format(method="fedper", rounds=2, start=""), "loud")
    ended = losses(list(fleet.finished("loud").evaluations[-1].agents), "merged")
    fleet.submit(RUN.format(method="fedper", rounds=1, start=GOES_ON.format("quiet")), "after")
    assert losses(list(fleet.finished("after").rounds[0].agents), "start") == ended


def test_stages_go_on_by_their_names(fleet: Federation) -> None:
    stages = '[[stage]]\nname = "one"\n[[stage]]\nname = "two"\nset = {"run.memory_from" = "init_from"}\n'
    fleet.submit(RUN.format(method="fedper", rounds=1, start="") + stages, "staged")
    fleet.finished("staged.one")
    ended = losses(list(fleet.show("staged.one").evaluations[-1].agents), "merged")
    assert losses(list(fleet.finished("staged.two").rounds[0].agents), "start") == ended


def test_an_agent_that_has_lost_them_begins_afresh(fleet: Federation, tmp_path: Path) -> None:
    fleet.submit(RUN.format(method="fedper", rounds=1, start=""), "lost")
    fleet.finished("lost")
    agent = fleet.programs["b"]
    agent.stop()
    (place,) = (fleet.folder / "b" / "memory").glob("*/lost")
    place.rename(tmp_path / "away")
    agent.start()
    fleet.submit(RUN.format(method="fedper", rounds=1, start=GOES_ON.format("lost")), "again")
    assert len(fleet.finished("again").rounds[0].agents) == 2


def test_another_method_has_other_memories(fleet: Federation) -> None:
    with pytest.raises(grpc.RpcError, match="needs the same method: run 'before' is of fedper, this one of fedrep"):
        fleet.submit(RUN.format(method="fedrep", rounds=1, start=GOES_ON.format("before")), "other")
