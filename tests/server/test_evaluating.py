from common.run_sections import RunFile
from common.runfile import parse
from server.evaluating import is_due, is_due_within_tasks


def due(evaluation: str) -> tuple[list[int], list[int]]:
    """The rounds of six after which all is measured, and those whose tasks measure too."""
    file: RunFile = parse(f'[run]\nmethod = "fedavg"\nrounds = 6\n[evaluation]\n{evaluation}', "run.toml")
    return tuple([r for r in range(1, 7) if asks(file, r)] for asks in (is_due, is_due_within_tasks))  # type: ignore[return-value]


def test_moments_within_tasks_come_with_the_others_unless_they_have_rounds_of_their_own() -> None:
    assert due("every = 4") == ([4, 6], [4, 6])
    assert due("every = 4\nevery_task = 2") == ([4, 6], [2, 4, 6])
    assert due("every = 3\nevery_task = 0") == ([3, 6], [])
    assert due("every = 0\nevery_task = 1") == ([], [1, 2, 3, 4, 5, 6])
