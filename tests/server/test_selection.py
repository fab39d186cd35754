import pytest

from common.errors import ConfigError
from common.run_sections import AgentsSection, RunFile
from common.runfile import parse, to_toml
from server.selection import asked, chosen, inlined, wanted

NAMES = [f"a{i:02}" for i in range(20)]


def test_the_draw_depends_on_seed_and_round_alone() -> None:
    agents = AgentsSection(min=1, fraction=0.25)
    first = chosen(NAMES, NAMES, agents, 1, 1)
    assert len(first) == 5
    assert list(first) == sorted(first)
    assert first == chosen(list(reversed(NAMES)), set(NAMES), agents, 1, 1)
    assert len({chosen(NAMES, NAMES, agents, 1, r) for r in range(1, 9)}) > 4
    assert len({chosen(NAMES, NAMES, agents, seed, 1) for seed in range(8)}) > 4


def test_an_agent_that_is_away_is_passed_over_and_the_others_stay() -> None:
    agents = AgentsSection(min=1, fraction=0.25)
    first = chosen(NAMES, NAMES, agents, 1, 1)
    without = chosen(NAMES, [name for name in NAMES if name != first[0]], agents, 1, 1)
    assert len(without) == 5
    assert set(first[1:]) < set(without)


def test_fewer_than_min_online_is_no_choice() -> None:
    agents = AgentsSection(min=3, fraction=1.0)
    assert chosen(NAMES, NAMES[:2], agents, 1, 1) == ()
    assert chosen(NAMES, NAMES[:3], agents, 1, 1) == tuple(NAMES[:3])
    assert chosen([], [], agents, 1, 1) == ()


def test_min_is_also_the_least_that_is_wanted() -> None:
    agents = AgentsSection(min=4, fraction=0.1, over_selection=0.5)
    assert (wanted(agents, 20), asked(agents, 20)) == (4, 6)
    assert (wanted(agents, 60), asked(agents, 60)) == (6, 9)
    assert (wanted(agents, 3), asked(agents, 3)) == (3, 3)


def test_a_list_per_round_by_name_or_place() -> None:
    agents = AgentsSection(min=1, selection=(("a03", "a01"), (0, 5)))
    assert chosen(NAMES, NAMES, agents, 1, 1) == ("a01", "a03")
    assert chosen(NAMES, NAMES, agents, 1, 2) == ("a00", "a05")
    assert chosen(NAMES, NAMES, agents, 1, 3) == ("a00", "a05")


def test_a_place_that_does_not_exist_is_named() -> None:
    agents = AgentsSection(min=1, selection=((99,),))
    with pytest.raises(ConfigError, match=r"agent number 99 in round 1, expected 0 to 19"):
        chosen(NAMES, NAMES, agents, 1, 1)


def run_file(selection: str, rounds: int = 2) -> RunFile:
    text = f'[run]\nmethod = "fedavg"\nrounds = {rounds}\n[agents]\nselection = "{selection}"\n'
    return parse(text, "run.toml")


def test_lists_of_a_file_stand_in_the_run_itself() -> None:
    found = inlined(run_file("lists.json"), {"lists.json": b'[[1, 0], ["a03"], [7]]'})
    assert found.agents.selection == ((1, 0), ("a03",))  # of the rounds that there are
    assert parse(to_toml(found), "again").agents.selection == found.agents.selection
    assert chosen(NAMES, NAMES, found.agents, 1, 1) == ("a00", "a01")


def test_a_seeded_draw_needs_no_file() -> None:
    file = run_file("seeded")
    assert inlined(file, {}) is file


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({}, "lists.json was not sent with the run file"),
        ({"lists.json": b"[[1"}, "lists.json is no JSON"),
        ({"lists.json": b"[1, 2]"}, "must hold one list of agents per round"),
        ({"lists.json": b"[[1.5]]"}, r"agents.selection must be a text or a list of"),
    ],
)
def test_lists_that_cannot_be_used(sent: dict[str, bytes], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        inlined(run_file("lists.json"), sent)


def test_another_word_than_seeded_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"selection must be 'seeded', a list of agents per round or FILE.json"):
        run_file("random")
