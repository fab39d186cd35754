"""The course of a run: which step comes after which, and the numbers of each round."""

from dataclasses import dataclass, field
from typing import Any

from common import methods, runfile
from common.method import Method, RunSpec
from common.run_sections import RunFile
from server import evaluating, planning
from server.ledger import Place


@dataclass
class Course:
    run: runfile.Run
    method: Method = field(init=False)
    _last: tuple[int, RunSpec[Any]] | None = None  # the round that was last asked for

    def __post_init__(self) -> None:
        self.method = methods.load(self.run.file.run.method)

    @property
    def file(self) -> RunFile:
        return self.run.file

    def file_at(self, round_number: int) -> RunFile:
        """The sections with that round's numbers."""
        return self.run.file_at(round_number)

    def spec(self, round_number: int) -> RunSpec[Any]:
        """The run in that round; after the last one, as it was in that."""
        number = min(round_number, self.file.run.rounds)
        if self._last is None or self._last[0] != number:
            self._last = (number, self.run.at(number))
        return self._last[1]

    def is_over(self, place: Place) -> bool:
        return place.round > self.file.run.rounds

    def phases(self, round_number: int) -> tuple[str, ...]:
        return planning.phases(self.method, self.spec(round_number), round_number)

    def phase(self, place: Place) -> str:
        return self.phases(place.round)[place.phase]

    def after(self, place: Place) -> Place:
        if place.phase + 1 < len(self.phases(place.round)):
            return Place(place.step + 1, place.round, place.phase + 1)
        return Place(place.step + 1, place.round + 1, 0)

    def ends_round(self, place: Place) -> bool:
        return self.after(place).round != place.round

    def last_of(self, step: int, round_number: int) -> Place:
        """The place of a round's last step."""
        return Place(step, round_number, len(self.phases(round_number)) - 1)

    def moments_within(self, place: Place) -> list[str]:
        """What is measured within the tasks: in the last phase of a round that is evaluated."""
        if not self.ends_round(place) or not evaluating.is_due_within_tasks(self.file, place.round):
            return []
        return [moment for moment in self.file.evaluation.when if moment in evaluating.WITHIN_TASKS]

    def moments_offered(self) -> list[str]:
        """What is measured by evaluation offers."""
        return [moment for moment in self.file.evaluation.when if moment not in evaluating.WITHIN_TASKS]

    def has_evaluation_after(self, place: Place) -> bool:
        return evaluating.is_due(self.file, place.round) and bool(self.moments_offered())
