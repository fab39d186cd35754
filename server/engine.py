"""One run, from where the journal says that it is, to its end.

    choose agents -> plan -> offer -> collect -> close -> merge -> checkpoint -> evaluate -> report

The engine knows no method and no transport, runs in one thread, and keeps nothing that the journal does not have: a
server that is killed between any two lines comes back to the same step, with the AgentInfos that `plan` saw, and
asks no agent again that has replied.
"""

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import pb
from common.blobs import Blobs
from common.errors import ConfigError, LocalFault
from common.method import AgentInfo
from common.wire import records
from server import beginning, evaluating, initial, merging, planning, reporting, retention, selection
from server.beginning import DrawFirst
from server.collecting import Answer, Collection
from server.course import Course
from server.fleet import Fleet, Present
from server.inbox import Inbox
from server.journal import Journal
from server.ledger import EvaluationRow, Ledger, Place
from server.preparing import Preparing
from server.tending import Publish, Tending

log = logging.getLogger(__name__)


class Engine:
    """`folder` is that of the blobs, for the child process that draws the first State."""

    def __init__(
        self,
        run: str,
        journal: Journal,
        blobs: Blobs,
        fleet: Fleet,
        *,
        folder: Path,
        publish: Publish,
        draw_first: DrawFirst = initial.drawn,
    ) -> None:
        self.run = run
        self.inbox = Inbox(fleet, run)
        self._journal = journal
        self._blobs = blobs
        self._fleet = fleet
        self._folder = folder
        self._draw_first = draw_first
        self._pin = f"step {run}"
        self._ledger = Ledger(journal, run)
        self._loaded = beginning.load(journal, blobs, run)
        self._course = Course(self._loaded.run)
        self._preparing = Preparing(journal, fleet, run, self._course.file, self._loaded.ref)
        if self._loaded.is_settled and self._course.file.data.classes is None:
            self._preparing.classes = self._loaded.run.classes
        self._tending = Tending(journal, blobs, self.inbox, self._preparing, publish)
        self._state: Any = None  # Any: of a type that only the method knows
        self._report = pb.RoundReport()
        self._round_began, self._plan_s = time.monotonic(), 0.0

    def drive(self) -> None:
        """Work until the run is done.

        Raises:
            Stopped: told to.
            ConfigError: the run cannot go on as it is described.
            LocalFault: the disk; nothing is lost, drive again.
        """
        self._preparing.look()
        if self._ledger.checkpoint() is None:
            self._begin()
        place = self._restored()
        while True:
            self.inbox.check()
            self._evaluate()
            if self._course.is_over(place):
                break
            place = self._step(place)
        self._finish()

    def close(self) -> None:
        self.inbox.close()
        for owner in (self._pin, f"run {self.run}"):
            retention.unpin(self._journal, owner)
        retention.sweep(self._journal, self._blobs)

    def _begin(self) -> None:
        """Wait for agents, settle the class list, draw the first State."""
        preparing = self._preparing
        while not preparing.is_settled():
            if reason := preparing.nobody_can():
                raise ConfigError(reason)
            self._tending.say(preparing.waiting_for())
            self._tending.next(deadline=preparing.settles_at())
        self._loaded = beginning.settle(self._journal, self._blobs, self._loaded, preparing)
        self._course = Course(self._loaded.run)
        request = beginning.first_request(self._journal, self._loaded)
        record = self._draw_first(self._folder, request, self.inbox.check)
        beginning.hold(self._journal, self._blobs, self._pin, record)
        with self._journal.commit():
            self._ledger.begin(record)
            self._try_open(Place(0, 1, 0))
        self._tending.say("")

    def _restored(self) -> Place:
        checkpoint = self._ledger.checkpoint()
        if checkpoint is None:
            raise LocalFault(f"run {self.run} has no checkpoint")
        place, record = checkpoint
        self._state = self._decoded(self._course.method.State, record, "checkpoint")
        self._take_report(place)
        return place

    def _take_report(self, place: Place) -> None:
        """The round's report, with the steps of it that are over."""
        self._report = self._ledger.round_report(place.round) or pb.RoundReport(round=place.round)
        self._round_began, self._plan_s = time.monotonic(), 0.0
        if not self._course.is_over(place):
            self._tending.drafts.add(pb.WORK, [self._report], ended=False)

    # ------------------------------------------------------------------ a step

    def _step(self, place: Place) -> Place:
        while (row := self._ledger.step(place.step)) is None:
            if not self._try_open(place):
                self._tending.say(
                    f"round {place.round} waits for agents: {len(self._preparing.at_hand())} are connected"
                )
                self._tending.next()
        self._tending.say("")
        after = self._course.after(place)
        infos, again = self._ledger.planned(place.step)
        if row.status == "open" and not self._collect(place, after, infos, again, row.wanted):
            return after
        record = self._merge(place, {info.name: info for info in infos} | again)
        with self._journal.commit():
            self._write_advance(place, after, record)
        self._turn(place, after)
        if record is not None:
            # what a restarted server would have: arrays as they lie on the disk, with their digests
            self._state = self._decoded(self._course.method.State, record, "checkpoint")
        return after

    def _collect(
        self, place: Place, after: Place, infos: tuple[AgentInfo, ...], again: dict[str, AgentInfo], wanted: int
    ) -> bool:
        """Offer the step's tasks and take the replies in; whether there is something to merge."""
        agents = self._course.file_at(place.round).agents
        spec, phase = self._course.spec(place.round), self._course.phase(place)
        broadcast = self._broadcast(place, pb.WORK, self._course.moments_within(place))

        def plan(some: tuple[AgentInfo, ...]) -> dict[str, pb.Offer]:
            step = planning.step_of(spec, place.round, phase, place.step, "plan")
            began = time.monotonic()
            try:
                return broadcast.offers(self._course.method.plan(spec, self._state, some, step))
            finally:
                self._plan_s += time.monotonic() - began

        def replan(agent: str, memory_step: int) -> pb.Offer | None:
            info = replace(next(info for info in infos if info.name == agent), memory_step=memory_step)
            self._ledger.plan_again(place.step, info)
            return plan((info,)).get(agent)

        offers = plan(infos)
        for agent, info in again.items():
            offers.pop(agent, None)
            offers |= plan((info,))
        collection = Collection(
            self._fleet, offers, time.monotonic() + agents.deadline_s, replan, self._ledger.replied(place.step)
        )
        log.info("step_open run=%s round=%d phase=%s tasks=%d", self.run, place.round, phase, len(offers))
        self._tending.gather(collection, wanted)
        n = min(len(offers), wanted)  # agents asked beyond the wanted ones raise no quorum
        needed = math.ceil(agents.quorum * n - 1e-9) - collection.n_skipped()
        with self._journal.commit():
            merges = self._ledger.close_step(place.step, offers, needed)
            replied = self._ledger.replied(place.step)
            self._report_step(place, phase, collection, infos, merges=merges)
            self._report.quorum_missed |= len(replied & set(offers)) < needed
            if not merges:
                self._write_advance(place, after, None)
        self._tending.drafts.add(pb.WORK, [self._report], ended=False)
        if not merges:
            self._turn(place, after)
            log.warning(
                "quorum_missed run=%s round=%d phase=%s replies=%d needed=%d tasks=%d",
                *(self.run, place.round, phase, len(replied), needed, len(offers)),
            )
        return merges

    def _merge(self, place: Place, infos: dict[str, AgentInfo]) -> pb.Record | None:
        """The next State's record, its payloads durable; None when what is left of the replies is not enough."""
        spec, phase = self._course.spec(place.round), self._course.phase(place)
        row = self._ledger.step(place.step)
        while row is not None and len(names := self._ledger.closed(place.step)) >= row.needed:
            replies = merging.Replies(names, infos, lambda agent: self._reply(place, agent))
            step = planning.step_of(spec, place.round, phase, place.step, "merge")
            try:
                state = merging.merged(self._course.method, spec, self._state, replies, step)
            except merging.Unusable as unusable:
                self._leave_out(place, unusable.agent, str(unusable))
                continue
            if state is None:
                break
            return records.encode(state, self._put_state)
        self._report.quorum_missed = True
        for agent in self._report.agents:
            if agent.step == place.step and agent.outcome == "merged":
                agent.outcome, agent.reason = "lost", "too few replies could be merged"
        return None

    def _leave_out(self, place: Place, agent: str, reason: str) -> None:
        log.warning("reply_left_out run=%s round=%d agent=%s reason=%s", self.run, place.round, agent, reason)
        for report in self._report.agents:
            if report.step == place.step and report.agent == agent:
                report.outcome, report.reason = "failed", reason
        with self._journal.commit():
            self._ledger.leave_out(place.step, agent)
            self._ledger.save([self._report])

    def _write_advance(self, place: Place, after: Place, record: pb.Record | None) -> None:
        """Within a commit: the run stands at the next step, which is opened at once where that is possible."""
        self._ledger.advance(place.step, after, record)
        if after.round != place.round:
            self._report.seconds = time.monotonic() - self._round_began
            self._report.metrics.clear()
            self._report.metrics.update(reporting.round_metrics(self._report.agents))
            self._report.metrics["server_plan_s"] = self._plan_s
            if self._course.has_evaluation_after(place):
                self._ledger.open_evaluation(self._evaluation_of(place))
        self._tending.save([self._report])
        if not self._course.is_over(after):
            self._try_open(after)

    def _turn(self, place: Place, after: Place) -> None:
        """After that commit."""
        self._tending.let_go(self._pin)
        if after.round != place.round:
            log.info("round_done run=%s round=%d seconds=%.3f", self.run, place.round, self._report.seconds)
            self._tending.drafts.add(pb.WORK, [self._report], ended=True)
            self._take_report(after)

    def _try_open(self, place: Place) -> bool:
        """Choose the agents of the step and write down what `plan` will see of them; False when too few are there."""
        agents = self._course.file_at(place.round).agents
        present = self._preparing.at_hand()
        ready = self._preparing.ready()
        names = selection.chosen(ready, present, agents, self._course.file.run.seed, place.round)
        if not names:
            return False
        infos = [planning.agent_info(self._journal, self.run, present[name]) for name in names]
        wanted = len(infos)
        if agents.over_selection and isinstance(agents.selection, str):
            wanted = min(wanted, selection.wanted(agents, len(ready)))
        self._ledger.open_step(place, infos, wanted)
        return True

    def _broadcast(self, place: Place, kind: "pb.TaskKind", moments: list[str]) -> planning.Broadcast:
        template = pb.Offer(
            key=pb.TaskKey(run=self.run, step=place.step, kind=kind),
            round=place.round,
            phase=self._course.phase(place),
            run=self._loaded.ref,
            moments=moments,
            expects_reply=kind == pb.WORK,
        )
        spec, positions = self._course.spec(place.round), self._preparing.positions()
        merged, run = self._ledger.merged_steps(), self._loaded.run.file.run
        before = Ledger(self._journal, run.init_from).merged_steps() if run.memory_from == "init_from" else None
        return planning.Broadcast(self._journal, self._blobs, self._pin, spec, template, merged, positions, before)

    def _report_step(
        self,
        place: Place,
        phase: str,
        collection: Collection,
        infos: tuple[AgentInfo, ...],
        *,
        merges: bool,
    ) -> None:
        """Add what became of each task to the round's report."""
        task_of, present = {info.name: info.data.name for info in infos}, self._fitting()
        answers = collection.withdraw("the step is closed")
        for agent in sorted(collection.offers):
            header = self._ledger.header(place.step, agent)
            answer = answers.get(agent, Answer("lost", ""))
            if header is not None:
                answer = Answer("merged", "") if merges else Answer("lost", "too few replied: the quorum was missed")
            key = pb.TaskKey(run=self.run, step=place.step, agent=agent)
            report = reporting.agent_report(key, phase, answer, header, task_of[agent], present.get(agent))
            self._report.agents.append(report)
        self._tending.save([self._report])

    # ------------------------------------------------------------------ evaluation

    def _evaluation_of(self, place: Place) -> EvaluationRow:
        ready = {name for name in self._preparing.ready() if name in self._fitting()}
        sampled = [report.agent for report in self._report.agents if report.step == place.step]
        at = (place.step, place.round)
        return evaluating.chosen(self._course.file, at, ready, self._preparing.at_hand(), sampled)

    def _evaluate(self) -> None:
        """Measure the State of the last round, if an evaluation is open."""
        row = self._ledger.evaluation()
        if row is None:
            return
        moments = self._course.moments_offered()
        place = self._course.last_of(row.step, row.round)
        spec, phase = self._course.spec(row.round), self._course.phase(place)
        broadcast = self._broadcast(place, pb.EVALUATE, moments)
        present = self._fitting()
        infos = {n: planning.agent_info(self._journal, self.run, present[n]) for n in row.agents if n in present}

        def plan(some: tuple[AgentInfo, ...]) -> dict[str, pb.Offer]:
            step = planning.step_of(spec, row.round, phase, row.step, "evaluate")
            return broadcast.offers(planning.evaluation_plan(self._course.method)(spec, self._state, some, step))

        def replan(agent: str, memory_step: int) -> pb.Offer | None:
            self._ledger.set_memory(agent, memory_step)
            return plan((replace(infos[agent], memory_step=memory_step),)).get(agent)

        deadline = time.monotonic() + self._course.file_at(row.round).agents.deadline_s
        offers = plan(tuple(infos[name] for name in sorted(infos)))
        replied = self._ledger.replied(row.step, pb.EVALUATE)
        collection = Collection(self._fleet, offers, deadline, replan, replied)
        self._tending.gather(collection, len(offers))
        collection.withdraw("the evaluation is closed")
        with self._journal.commit():
            self._ledger.close_evaluation(row.step)
            headers = {name: self._ledger.header(row.step, name, pb.EVALUATE) for name in row.agents}
            agents = [
                reporting.agent_report(
                    header.key, phase, Answer("merged", ""), header, self._data_name(infos.get(name)), present.get(name)
                )
                for name, header in headers.items()
                if header is not None
            ]
            missing = {*row.missing, *(name for name, header in headers.items() if header is None)}
            reports = reporting.evaluation_reports(row.round, moments, agents, missing)
            self._tending.save([*reports])
            self._ledger.forget_evaluation(row.step)
        self._tending.let_go(self._pin)
        self._tending.drafts.add(pb.EVALUATE, reports, ended=True)

    # ------------------------------------------------------------------ the end

    def _finish(self) -> None:
        while not self._tending.drafts.is_empty:
            self._tending.next()
        spec = self._course.spec(self._course.file.run.rounds)
        result = self._course.method.result(spec, self._state)
        with self._journal.commit():
            self._tending.save([])
            self._ledger.finish(self._blobs, result)
        self._tending.let_go(self._pin)
        self._tending.sweep()
        log.info("run_done run=%s", self.run)

    # ------------------------------------------------------------------ small things

    def _reply(self, place: Place, agent: str) -> Any:  # Any: of a type that only the method knows
        header = self._ledger.header(place.step, agent)
        if header is None:
            raise LocalFault(f"run {self.run} step {place.step}: the reply of agent {agent} is not in the journal")
        return self._decoded(self._course.method.Reply, header.record, f"round {place.round}, reply of agent {agent}")

    @staticmethod
    def _data_name(info: AgentInfo | None) -> str:
        return "" if info is None else info.data.name  # it replied, and its host has since dropped it

    def _fitting(self) -> dict[str, Present]:
        return {agent.name: agent for agent in self._fleet.agents() if self._preparing.fits(agent)}

    def _decoded(self, cls: Any, record: pb.Record, what: str) -> Any:
        return records.decode(
            cls,
            record,
            lambda ref, _type: self._blobs.open(ref),
            where=f"run {self.run}: {what}",
            get_kept=lambda ref, _type: self._blobs.open(ref, whole=True),
        )

    def _put_state(self, payload: Any) -> pb.PayloadRef:
        return retention.put_pinned(self._journal, self._blobs, self._pin, payload, "exact")
