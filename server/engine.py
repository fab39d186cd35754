"""One run, from where the journal says that it is, to its end.

    choose agents -> plan -> offer -> collect -> close -> merge -> checkpoint -> evaluate -> report

The engine knows no method and no transport, runs in one thread, and keeps nothing that the journal does not have: a
server that is killed between any two lines comes back to the same step, with the AgentInfos that `plan` saw, and
asks no agent again that has replied.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import methods, pb, run_taxonomy, runfile
from common.blobs import Blobs
from common.errors import ConfigError, LocalFault, QuorumMissed, RemoteFault
from common.method import AgentInfo, RunSpec
from common.payloads import Blob
from common.wire import records
from server import evaluating, initial, planning, reporting, retention, selection
from server.collecting import Answer, Collection
from server.drafts import Drafts, Report
from server.fleet import Fleet, Present
from server.inbox import Inbox, Listener
from server.journal import Journal
from server.ledger import EvaluationRow, Ledger, Place
from server.preparing import Preparing

log = logging.getLogger(__name__)

DrawFirst = Callable[[Path, initial.Request], pb.Record]
Publish = Callable[[pb.RunEvent], None]
# Removing files takes milliseconds each, so it is done while the agents work, or once a second when rounds are shorter.
_IDLE_S, _SWEEP_S = 0.05, 1.0
_QUIET_S = 1.0  # reports that transfers have completed are written with the next commit, or after so long without one


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
        self._publish = publish
        self._draw_first = draw_first
        self._ledger = Ledger(journal, run)
        self._drafts = Drafts(run, self._publish_report)
        self._note = ""
        self._settled, self._blob, settled = self._load()
        self._method = methods.load(self._settled.file.run.method)
        self._preparing = Preparing(journal, fleet, run, self._settled.file, self._blob)
        if settled and self._settled.file.data.classes is None:
            self._preparing.classes = self._settled.classes
        self._to_sweep = True
        self._swept_at = time.monotonic()
        self._at: tuple[int, RunSpec[Any]] | None = None  # the run in the round that was last asked for
        self._state: Any = None  # Any: of a type that only the method knows
        self._report = pb.RoundReport()
        self._round_began = time.monotonic()

    def drive(self) -> None:
        """Work until the run is done.

        Raises:
            Stopped: told to.
            ConfigError: the run cannot go on as it is described.
            LocalFault: the disk; nothing is lost, drive again.
        """
        retention.unpin(self._journal, self._pin)
        self._preparing.look()
        if self._ledger.checkpoint() is None:
            self._begin()
        place = self._restored()
        while True:
            self.inbox.check()
            self._evaluate()
            if place.round > self._settled.file.run.rounds:
                break
            place = self._step(place)
        self._finish()

    def close(self) -> None:
        self.inbox.close()

    # ------------------------------------------------------------------ beginning

    def _load(self) -> tuple[runfile.Run, pb.PayloadRef, bool]:
        row = self._journal.row("SELECT blob, settled FROM runs WHERE run = ?", self.run)
        if row is None:
            raise LocalFault(f"run {self.run} is not in the journal")
        blob = Blob(runfile.MEDIA_TYPE, row["blob"])
        return runfile.from_blob(blob), self._keep(blob), bool(row["settled"])

    def _keep(self, blob: Blob) -> pb.PayloadRef:
        ref = retention.put_pinned(self._journal, self._blobs, f"run {self.run}", blob, "exact")
        return ref  # pinned as long as the server runs; put again after a restart

    def _begin(self) -> None:
        """Wait for agents, settle the class list, draw the first State."""
        can = self._preparing
        if not can.is_settled():
            self._say(can.waiting_for())
        while not can.is_settled():
            self._next([])
            if reason := can.nobody_can():
                raise ConfigError(reason)
            if not can.is_settled():
                self._say(can.waiting_for())
        classes = can.settle_classes()
        file = self._settled.file
        blob = runfile.to_blob(file, self.run, classes, run_taxonomy.edges(file))
        self._settled, self._blob, self._at = runfile.from_blob(blob), self._keep(blob), None
        can.blob = self._blob
        self._journal.write("UPDATE runs SET blob = ?, settled = 1 WHERE run = ?", bytes(blob.data), self.run)
        record = self._draw_first(self._folder, self._first_request())
        self._hold(record)
        with self._journal.commit():
            self._ledger.begin(record)
            self._try_open(Place(0, 1, 0))
        self._say("")

    def _first_request(self) -> initial.Request:
        run = self._settled.file.run
        start: dict[str, pb.PayloadRef] = {}
        row = self._journal.row("SELECT init_from FROM runs WHERE run = ?", self.run)
        if row is not None and row["init_from"]:
            source = row["init_from"]
            start = initial.mapped(Ledger(self._journal, source).result(), run.init_map, source)
        weights = None
        if run.init != "seed":
            found = self._journal.row("SELECT ref FROM files WHERE run = ? AND name = ?", self.run, run.init)
            if found is None:
                raise ConfigError(f"[run] init: {run.init} was not sent with the run")
            weights = pb.PayloadRef.FromString(found["ref"])
        return initial.Request(self._blob, start, weights)

    def _hold(self, record: pb.Record) -> None:
        """Payloads that were written by another process: none may go before the checkpoint owns it."""
        digests = [ref.sha256 for ref in record.payloads]
        retention.pin(self._journal, self._pin, digests)
        if not all(self._blobs.has(sha256) for sha256 in digests):
            raise LocalFault(f"run {self.run}: a payload of the first state has vanished; it is drawn again")

    def _restored(self) -> Place:
        checkpoint = self._ledger.checkpoint()
        if checkpoint is None:
            raise LocalFault(f"run {self.run} has no checkpoint")
        place, record = checkpoint
        self._state = self._decoded(self._method.State, record, "checkpoint")
        self._take_report(place)
        return place

    def _take_report(self, place: Place) -> None:
        """The round's report, with the steps of it that are over."""
        self._report = self._ledger.round_report(place.round) or pb.RoundReport(round=place.round)
        self._round_began = time.monotonic()
        if place.round <= self._settled.file.run.rounds:
            self._drafts.add(pb.WORK, [self._report], ended=False)

    # ------------------------------------------------------------------ a step

    def _step(self, place: Place) -> Place:
        while (row := self._ledger.step(place.step)) is None:
            if not self._try_open(place):
                self._say(self._preparing.waiting_for())
                self._next([])
        self._say("")
        after = self._after(place)
        infos, again = self._ledger.planned(place.step)
        if row.status == "open" and not self._collect(place, after, infos, again, row.wanted):
            return after
        record = self._merge(place, {info.name: info for info in infos} | again)
        with self._journal.commit():
            self._write_advance(place, after, record)
        self._turn(place, after)
        if record is not None:
            # what a restarted server would have: arrays as they lie on the disk, with their digests
            self._state = self._decoded(self._method.State, record, "checkpoint")
        return after

    def _collect(
        self, place: Place, after: Place, infos: tuple[AgentInfo, ...], again: dict[str, AgentInfo], wanted: int
    ) -> bool:
        """Offer the step's tasks and take the replies in; whether there is something to merge."""
        agents = self._file_at(place.round).agents
        spec, phase = self._spec(place.round), self._phase(place)
        broadcast = self._broadcast(place, pb.WORK, self._moments(place))

        def plan(some: tuple[AgentInfo, ...]) -> dict[str, pb.Offer]:
            step = planning.step_of(spec, place.round, phase, place.step, "plan")
            return broadcast.offers(self._method.plan(spec, self._state, some, step))

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
        self._catch_up()
        collection.start()
        if time.monotonic() > self._swept_at + _SWEEP_S:
            self._sweep()
        log.info("step_open run=%s round=%d phase=%s tasks=%d", self.run, place.round, phase, len(offers))
        while not collection.is_complete(wanted) and time.monotonic() < collection.deadline:
            self._next([collection], collection.deadline)
        n = min(len(offers), wanted)  # agents asked beyond the wanted ones raise no quorum
        needed = math.ceil(agents.quorum * n - 1e-9) - collection.n_skipped()
        with self._journal.commit():
            merges = self._ledger.close_step(place.step, offers, needed)
            replied = self._ledger.replied(place.step)
            self._report_step(place, phase, collection, infos, merges=merges)
            self._report.quorum_missed |= len(replied & set(offers)) < needed
            if not merges:
                self._write_advance(place, after, None)
        self._drafts.add(pb.WORK, [self._report], ended=False)
        if not merges:
            self._turn(place, after)
            log.warning(
                "quorum_missed run=%s round=%d phase=%s replies=%d needed=%d tasks=%d",
                *(self.run, place.round, phase, len(replied), needed, len(offers)),
            )
        return merges

    def _merge(self, place: Place, infos: dict[str, AgentInfo]) -> pb.Record | None:
        """The next State's record, its payloads durable; None when what is left of the replies is not enough."""
        spec, phase = self._spec(place.round), self._phase(place)
        row = self._ledger.step(place.step)
        while row is not None:
            names = self._ledger.closed(place.step)
            if len(names) < row.needed:
                break
            replies = _Replies(names, infos, lambda agent: self._reply(place, agent))
            step = planning.step_of(spec, place.round, phase, place.step, "merge")
            try:
                state = self._method.merge(spec, self._state, iter(replies), step)
            except QuorumMissed as missed:
                log.warning("nothing_merged run=%s round=%d reason=%s", self.run, place.round, missed)
                break
            except RemoteFault as fault:
                if replies.reading is None:
                    raise
                self._leave_out(place, replies.reading, str(fault))
                continue
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
            if evaluating.is_due(self._settled.file, place.round) and self._offered_moments():
                self._ledger.open_evaluation(self._evaluation_of(place))
        self._save([self._report])
        if after.round <= self._settled.file.run.rounds:
            self._try_open(after)

    def _turn(self, place: Place, after: Place) -> None:
        """After that commit: what it made superfluous may go, once the next step is on its way."""
        retention.unpin(self._journal, self._pin)
        self._to_sweep = True
        if after.round != place.round:
            log.info("round_done run=%s round=%d seconds=%.3f", self.run, place.round, self._report.seconds)
            self._drafts.add(pb.WORK, [self._report], ended=True)
            self._take_report(after)

    def _try_open(self, place: Place) -> bool:
        """Choose the agents of the step and write down what `plan` will see of them; False when too few are there."""
        agents = self._file_at(place.round).agents
        present = self._ready_now()
        ready = self._preparing.ready()
        names = selection.chosen(ready, present, agents, self._settled.file.run.seed, place.round)
        if not names:
            return False
        infos = [planning.agent_info(self._journal, self.run, present[name]) for name in names]
        wanted = len(infos)
        if agents.over_selection and isinstance(agents.selection, str):
            wanted = min(wanted, selection.wanted(agents, len(ready)))
        self._ledger.open_step(place, infos, wanted)
        return True

    def _after(self, place: Place) -> Place:
        if place.phase + 1 < len(planning.phases(self._method, self._spec(place.round), place.round)):
            return Place(place.step + 1, place.round, place.phase + 1)
        return Place(place.step + 1, place.round + 1, 0)

    def _phase(self, place: Place) -> str:
        return planning.phases(self._method, self._spec(place.round), place.round)[place.phase]

    def _moments(self, place: Place) -> list[str]:
        """What is measured within the tasks: in the last phase of a round that is evaluated."""
        due = evaluating.is_due_within_tasks(self._settled.file, place.round)
        if self._after(place).round == place.round or not due:
            return []
        return [moment for moment in self._settled.file.evaluation.when if moment in evaluating.WITHIN_TASKS]

    def _offered_moments(self) -> list[str]:
        return [m for m in self._settled.file.evaluation.when if m not in evaluating.WITHIN_TASKS]

    def _broadcast(self, place: Place, kind: "pb.TaskKind", moments: list[str]) -> planning.Broadcast:
        template = pb.Offer(
            key=pb.TaskKey(run=self.run, step=place.step, kind=kind),
            round=place.round,
            phase=self._phase(place),
            run=self._blob,
            moments=moments,
            expects_reply=kind == pb.WORK,
        )
        spec, positions = self._spec(place.round), self._preparing.positions()
        merged = self._ledger.merged_steps()
        return planning.Broadcast(self._journal, self._blobs, self._pin, spec, template, merged, positions)

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
        task_of = {info.name: info.data.name for info in infos}
        answers = collection.withdraw("the step is closed")
        for agent in sorted(collection.offers):
            header = self._ledger.header(place.step, agent)
            answer = answers.get(agent, Answer("lost", ""))
            if header is not None:
                answer = Answer("merged", "") if merges else Answer("lost", "too few replied: the quorum was missed")
            key = pb.TaskKey(run=self.run, step=place.step, agent=agent)
            self._report.agents.append(reporting.agent_report(key, phase, answer, header, task_of[agent]))
        self._save([self._report])

    # ------------------------------------------------------------------ evaluation

    def _evaluation_of(self, place: Place) -> EvaluationRow:
        ready = {name for name in self._preparing.ready() if name in self._fitting()}
        sampled = [report.agent for report in self._report.agents if report.step == place.step]
        at = (place.step, place.round)
        return evaluating.chosen(self._settled.file, at, ready, self._ready_now(), sampled)

    def _evaluate(self) -> None:
        """Measure the State of the last round, if an evaluation is open."""
        row = self._ledger.evaluation()
        if row is None:
            return
        moments = self._offered_moments()
        n_phases = len(planning.phases(self._method, self._spec(row.round), row.round))
        place = Place(row.step, row.round, n_phases - 1)
        spec, phase = self._spec(row.round), self._phase(place)
        broadcast = self._broadcast(place, pb.EVALUATE, moments)
        present = self._fitting()
        infos = {n: planning.agent_info(self._journal, self.run, present[n]) for n in row.agents if n in present}

        def plan(some: tuple[AgentInfo, ...]) -> dict[str, pb.Offer]:
            step = planning.step_of(spec, row.round, phase, row.step, "evaluate")
            return broadcast.offers(planning.evaluation_plan(self._method)(spec, self._state, some, step))

        def replan(agent: str, memory_step: int) -> pb.Offer | None:
            self._ledger.set_memory(agent, memory_step)
            return plan((replace(infos[agent], memory_step=memory_step),)).get(agent)

        deadline = time.monotonic() + self._file_at(row.round).agents.deadline_s
        offers = plan(tuple(infos[name] for name in sorted(infos)))
        replied = self._ledger.replied(row.step, pb.EVALUATE)
        collection = Collection(self._fleet, offers, deadline, replan, replied)
        self._catch_up()
        collection.start()
        while not collection.is_complete(len(offers)) and time.monotonic() < deadline:
            self._next([collection], deadline)
        collection.withdraw("the evaluation is closed")
        with self._journal.commit():
            self._ledger.close_evaluation(row.step)
            headers = {name: self._ledger.header(row.step, name, pb.EVALUATE) for name in row.agents}
            agents = [
                reporting.agent_report(
                    header.key, phase, Answer("merged", ""), header, self._data_name(infos.get(name))
                )
                for name, header in headers.items()
                if header is not None
            ]
            missing = {*row.missing, *(name for name, header in headers.items() if header is None)}
            reports = reporting.evaluation_reports(row.round, moments, agents, missing)
            self._save([*reports])
            self._ledger.forget_evaluation(row.step)
        retention.unpin(self._journal, self._pin)
        self._drafts.add(pb.EVALUATE, reports, ended=True)

    # ------------------------------------------------------------------ the end

    def _finish(self) -> None:
        while not self._drafts.is_empty:
            self._next([])
        spec = self._spec(self._settled.file.run.rounds)
        result = self._method.result(spec, self._state)
        with self._journal.commit():
            self._save([])
            self._ledger.finish(self._blobs, result)
        self._sweep()
        log.info("run_done run=%s", self.run)

    # ------------------------------------------------------------------ small things

    def _reply(self, place: Place, agent: str) -> Any:  # Any: of a type that only the method knows
        header = self._ledger.header(place.step, agent)
        if header is None:
            raise LocalFault(f"run {self.run} step {place.step}: the reply of agent {agent} is not in the journal")
        return self._decoded(self._method.Reply, header.record, f"round {place.round}, reply of agent {agent}")

    def _next(self, listeners: list[Listener], deadline: float | None = None) -> None:
        now = time.monotonic()
        quiet = now + _QUIET_S if self._drafts.unsaved else None
        idle = now + _IDLE_S if self._to_sweep else None
        moments = [deadline, self._drafts.next_at(), quiet, idle]
        if self.inbox.next(moments, [self._preparing, self._drafts, *listeners]):
            return
        self._drafts.settle()
        self._sweep()
        if self._drafts.unsaved and time.monotonic() >= now + _QUIET_S:
            self._save([])

    def _sweep(self) -> None:
        if self._to_sweep:
            self._to_sweep, self._swept_at = False, time.monotonic()
            retention.sweep(self._journal, self._blobs)

    def _catch_up(self) -> None:
        """Hear what has come already: an agent that joined before an offer is not offered the same again."""
        while self.inbox.next([0.0], [self._preparing, self._drafts]):
            pass

    def _save(self, reports: list[Report]) -> None:
        """These, and those that transfers have completed since."""
        unsaved, self._drafts.unsaved = self._drafts.unsaved, []
        self._ledger.save([*reports, *unsaved])

    def _say(self, note: str) -> None:
        """Tell the operator what the run waits for."""
        if note != self._note:
            self._note = note
            self._journal.write("UPDATE runs SET reason = ? WHERE run = ?", note, self.run)
            self._publish(pb.RunEvent(summary=self._journal.summary(self.run), note=note))

    def _publish_report(self, report: Report) -> None:
        event = pb.RunEvent(summary=self._journal.summary(self.run))
        if isinstance(report, pb.RoundReport):
            event.round.CopyFrom(report)
        else:
            event.evaluation.CopyFrom(report)
        self._publish(event)

    @staticmethod
    def _data_name(info: AgentInfo | None) -> str:
        return "" if info is None else info.data.name  # it replied, and its host has since dropped it

    def _fitting(self) -> dict[str, Present]:
        return {agent.name: agent for agent in self._fleet.agents() if self._preparing.fits(agent)}

    def _ready_now(self) -> dict[str, Present]:
        """Agents that are ready for the run and connected."""
        ready = self._preparing.ready()
        return {name: agent for name, agent in self._fitting().items() if agent.online and name in ready}

    def _spec(self, round_number: int) -> RunSpec[Any]:
        number = min(round_number, self._settled.file.run.rounds)
        if self._at is None or self._at[0] != number:
            self._at = (number, self._settled.at(number))
        return self._at[1]

    def _file_at(self, round_number: int) -> runfile.RunFile:
        return self._settled.file_at(round_number)

    def _decoded(self, cls: Any, record: pb.Record, what: str) -> Any:
        return records.decode(cls, record, lambda ref, _type: self._blobs.open(ref), where=f"run {self.run}: {what}")

    def _put_state(self, payload: Any) -> pb.PayloadRef:
        return retention.put_pinned(self._journal, self._blobs, self._pin, payload, "exact")

    @property
    def _pin(self) -> str:
        return f"step {self.run}"


class _Replies:
    """The closed replies in the order of agent names, each decoded from its memory map when it is asked for."""

    def __init__(self, names: list[str], infos: dict[str, AgentInfo], read: Callable[[str], Any]) -> None:
        self._names = names
        self._infos = infos
        self._read = read
        self.reading: str | None = None  # the agent whose reply `merge` has, None before the first and after the last

    def __iter__(self) -> Iterator[tuple[AgentInfo, Any]]:
        for name in self._names:
            self.reading = name
            yield self._infos[name], self._read(name)
        self.reading = None
