"""Whole runs through journal, blobs, intake, fleet and engine, with agents in memory."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common import files, pb
from common.errors import LocalFault
from common.methods import fedavg
from common.payloads import Weights
from common.wire import records
from server import engine, initial, ledger, merging, runs
from server.collecting import Collection
from server.engine import Engine
from server.journal import Journal
from server.runs import Runs
from server.tending import Tending
from server.watching import Watched
from tests.server.devices import RUN, Device, moved
from tests.server.workshop import Workshop, drawn_here, wait_for


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with Workshop(tmp_path) as opened:
        yield opened


def test_two_rounds_are_the_mean_of_what_the_agents_sent(shop: Workshop) -> None:
    agents = shop.join(["a", "b"])
    agents["b"].n_samples = 30
    shop.runs.start()
    name = shop.runs.submit(RUN, "two").run
    assert shop.ended(name).status == "done", shop.summary(name).reason
    result = shop.runs.export(name)["weights"]
    assert isinstance(result, Weights)
    first = shop.devices["a"].of_kind(pb.WORK)[0]
    start = shop.devices["a"].blobs.open(first.task.payloads[0])
    expected = start
    for number in (1, 2):
        sent = [(10, moved(expected, "a", number)), (30, moved(expected, "b", number))]
        expected = Weights({n: sum(k * w[n].astype(np.float64) for k, w in sent) / 40 for n in start})
        expected = Weights({n: a.astype(np.float32) for n, a in expected.items()})
    for tensor in start:
        np.testing.assert_allclose(result[tensor], expected[tensor], rtol=1e-6)


def test_a_round_report_says_what_became_of_each_agent_and_what_it_cost(shop: Workshop) -> None:
    shop.join(["a", "b"])
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("every = 0", 'every = 2\nwhen = ["start", "merged", "finetuned"]'), "told").run
    shop.ended(name)
    detail = shop.runs.detail(name)
    assert [report.round for report in detail.rounds] == [1, 2]
    for report in detail.rounds:
        assert [(a.agent, a.outcome, a.task) for a in report.agents] == [
            ("a", "merged", "data of a"),
            ("b", "merged", "data of b"),
        ]
        assert report.metrics["bytes_per_round"] == 2 * 150
        assert [a.report.device.machine for a in report.agents] == ["board of a", "board of b"]
        assert report.metrics["train_loss"] == 0.5
        assert not any(agent.transfer_missing for agent in report.agents)
    assert "accuracy_start" not in detail.rounds[0].metrics
    assert detail.rounds[1].metrics["accuracy_start"] == 6 / 20
    assert [(e.round, e.moment, list(e.missing)) for e in detail.evaluations] == [
        (2, "finetuned", []),
        (2, "merged", []),
    ]
    assert detail.evaluations[1].metrics["accuracy"] == 6 / 20
    assert detail.evaluations[1].metrics["personal_accuracy"] == pytest.approx(0.3)
    assert detail.evaluations[0].metrics["loss_finetuned"] == 0.1


def test_what_planning_took_is_of_each_round_alone(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, later = fedavg.plan, 0.0

    def slow(*given: Any) -> Any:
        nonlocal later
        later += 1000.0
        yield from plan(*given)

    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: later + time.monotonic()))
    monkeypatch.setattr(fedavg, "plan", slow)
    shop.join(["a", "b"])
    shop.runs.start()
    name = shop.runs.submit(RUN, "slow").run
    shop.ended(name)
    first, second = (report.metrics["server_plan_s"] for report in shop.runs.detail(name).rounds)
    assert 1000 <= first < 2000
    assert 1000 <= second < 2000


def test_the_task_that_agents_share_is_one_payload_and_nothing_unreferenced_stays(shop: Workshop) -> None:
    agents = shop.join(["a", "b", "c"])
    shop.runs.start()
    name = shop.runs.submit(RUN, "tidy").run
    shop.ended(name)
    first = {tuple(r.sha256 for r in d.of_kind(pb.WORK)[0].task.payloads) for d in agents.values()}
    assert len(first) == 1
    referred = {bytes(row[0]) for row in shop.journal.rows("SELECT sha256 FROM refs")}
    wait_for(lambda: shop.blobs.digests() == referred)  # the engine lets go of the run itself after the end is told


def test_what_the_journal_keeps_of_steps_that_are_over_is_bounded(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "REMEMBERED", 3)

    def only_once(device: Device, offer: pb.Offer) -> pb.Declined | None:
        return pb.Declined(why=pb.SKIPPED) if device.name == "b" and offer.key.step else None

    devices = shop.join(["a", "b"], decline=only_once)
    shop.runs.start()
    text = RUN.replace("rounds = 2", "rounds = 9").replace("every = 0", "every = 1")
    run = shop.runs.submit(text, "long").run
    assert shop.ended(run).status == "done"
    for table in ("planned", "replies", "closed"):
        steps = {row["step"] for row in shop.journal.rows(f"SELECT step FROM {table} WHERE run = ?", run)}
        assert steps == {6, 7, 8}, table
    assert len(shop.runs.detail(run).rounds) == 9, "reports stay"

    def again(agent: str, step: int) -> str:
        """What a reply of that step is told that was on its way ever since."""
        key = pb.TaskKey(run=run, step=step, agent=agent, kind=pb.WORK)
        opened = shop.intake.open(pb.RecordHeader(key=key))
        assert isinstance(opened, pb.Receipt)
        return pb.Verdict.Name(opened.verdict)

    assert devices["a"].receipts[0].verdict == pb.ACCEPTED
    assert [again("a", 0), again("b", 0), again("b", 1)] == ["LATE", "ACCEPTED", "LATE"]


def test_replies_merge_in_the_order_of_names_whatever_their_arrival(tmp_path: Path) -> None:
    assert _digest_after_arrival(tmp_path / "0", ["a", "b", "c"]) == _digest_after_arrival(
        tmp_path / "1", ["c", "b", "a"]
    )


def _digest_after_arrival(folder: Path, order: list[str]) -> str:
    turns = {name: threading.Event() for name in [*order, "end"]}
    turns[order[0]].set()

    def in_turn(device: Device, _offer: pb.Offer, header: pb.RecordHeader) -> None:
        assert header.key.step > 0 or turns[device.name].wait(60)
        device.submit(header)
        turns[[*order, "end"][order.index(device.name) + 1]].set()

    with Workshop(folder) as shop:
        shop.join(order, before_submit=in_turn)
        shop.runs.start()
        return shop.ended(shop.runs.submit(RUN.replace("min = 2", "min = 3"), "order").run).state_sha256


def test_over_selection_closes_with_enough_replies_and_the_rest_is_late(shop: Workshop) -> None:
    held: list[pb.RecordHeader] = []
    has_begun = threading.Event()

    def hold(device: Device, _offer: pb.Offer, header: pb.RecordHeader) -> pb.RecordHeader | None:
        if device.name == "c" and header.key.kind == pb.WORK:
            held.append(header)
            has_begun.set()
            return None
        assert has_begun.wait(60)
        return header

    agents = shop.join(["a", "b", "c"], before_submit=hold)
    shop.runs.start()
    text = RUN.replace("rounds = 2", "rounds = 1").replace("min = 2", "min = 3\nfraction = 0.1\nover_selection = 1.0")
    text = text.replace("min = 3", "min = 2")
    name = shop.runs.submit(text, "over").run
    wait_for(lambda: len(held) == 1)
    shop.ended(name)
    assert [(a.agent, a.outcome) for a in shop.runs.detail(name).rounds[0].agents] == [
        ("a", "merged"),
        ("b", "merged"),
        ("c", "late"),
    ]
    receipt = agents["c"].submit(held[0])
    assert receipt.verdict == pb.LATE
    assert "run over step 0 agent c" in receipt.reason


def test_a_missed_quorum_leaves_the_state_and_the_round_advances(shop: Workshop) -> None:
    def silent_in_round_1(device: Device, offer: pb.Offer, header: pb.RecordHeader) -> pb.RecordHeader | None:
        return None if device.name == "b" and offer.round == 1 else header

    agents = shop.join(["a", "b"], before_submit=silent_in_round_1)
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("deadline_s = 60", "deadline_s = 3\nquorum = 1.0"), "missed").run
    shop.ended(name)
    detail = shop.runs.detail(name)
    assert [report.quorum_missed for report in detail.rounds] == [True, False]
    assert [a.outcome for a in detail.rounds[0].agents] == ["lost", "late"]
    first, second = agents["a"].of_kind(pb.WORK)
    assert first.task == second.task
    assert (second.memory_step, second.merged_step) == (-1, -1)
    assert shop.summary(name).round == 2


def test_an_answer_skipped_counts_for_the_quorum_and_a_failure_does_not(shop: Workshop) -> None:
    def decline(device: Device, offer: pb.Offer) -> pb.Declined | None:
        if device.name != "b" or offer.key.kind != pb.WORK:
            return None
        return pb.Declined(why=pb.SKIPPED if offer.round == 1 else pb.FAILED, reason="no samples")

    shop.join(["a", "b"], decline=decline)
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("deadline_s = 60", "deadline_s = 60\nquorum = 1.0"), "skip").run
    shop.ended(name)
    first, second = shop.runs.detail(name).rounds
    assert (first.quorum_missed, [a.outcome for a in first.agents]) == (False, ["merged", "skipped"])
    assert (second.quorum_missed, [a.outcome for a in second.agents]) == (True, ["lost", "failed"])
    assert second.agents[1].reason == "no samples"


def test_a_reply_that_comes_while_a_restarted_server_takes_its_step_up_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the replies that are here and the offers; b is asked again and has nothing more to say."""
    held: list[pb.RecordHeader] = []
    with Workshop(tmp_path) as shop:
        agents = shop.join(["a", "b"])
        agents["b"].before_submit = lambda _device, _offer, header: held.append(header)
        shop.runs.start()
        name = shop.runs.submit(RUN, "again").run
        wait_for(lambda: bool(held and agents["a"].receipts))
    gather = Tending.gather

    def after_a_reply(self: Tending, collection: Collection, wanted: int) -> None:
        if held:
            assert agents["b"].submit(held.pop()).verdict == pb.ACCEPTED
        gather(self, collection, wanted)

    monkeypatch.setattr(Tending, "gather", after_a_reply)
    with Workshop(tmp_path) as shop:
        agents = shop.join(["a", "b"])
        shop.runs.start()
        assert shop.ended(name, timeout=20).status == "done"


def test_an_agent_with_other_memory_is_planned_again_alone(shop: Workshop) -> None:
    agents = shop.join(["a", "b"])
    shop.runs.start()

    def other(device: Device, offer: pb.Offer) -> pb.Declined | None:
        if offer.key.kind == pb.WORK and offer.round == 2 and offer.memory_step != -1:
            return pb.Declined(why=pb.OTHER_MEMORY, memory_step=-1)
        return None

    agents["b"].decline = other
    name = shop.runs.submit(RUN, "wiped").run
    shop.ended(name)
    assert [(o.round, o.memory_step, o.merged_step) for o in agents["b"].of_kind(pb.WORK)] == [
        (1, -1, -1),
        (2, 0, 0),
        (2, -1, 0),
    ]
    assert [(o.round, o.memory_step) for o in agents["a"].of_kind(pb.WORK)] == [(1, -1), (2, 0)]
    assert [a.outcome for a in shop.runs.detail(name).rounds[1].agents] == ["merged", "merged"]


def test_a_reply_that_merge_cannot_use_is_left_out_and_its_agent_named(shop: Workshop) -> None:
    def broken(device: Device, offer: pb.Offer, header: pb.RecordHeader) -> pb.RecordHeader:
        if device.name == "b" and offer.key.kind == pb.WORK and offer.round == 1:
            reply = fedavg.Reply(Weights({"other": np.zeros(3, np.float32)}), 10)
            header.record.CopyFrom(records.encode(reply, device.blobs.put))
        return header

    shop.join(["a", "b"], before_submit=broken)
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("deadline_s = 60", "deadline_s = 60\nquorum = 0.5"), "broken").run
    shop.ended(name)
    first = shop.runs.detail(name).rounds[0]
    assert [a.outcome for a in first.agents] == ["merged", "failed"]
    assert "agent b: tensor 'classifier.weight' is missing" in first.agents[1].reason
    assert not first.quorum_missed


def test_phases_make_several_steps_of_a_round(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedavg, "phases", lambda run, number: ("look", "train"), raising=False)
    agents = shop.join(["a", "b"])
    shop.runs.start()
    name = shop.runs.submit(RUN, "phases").run
    shop.ended(name)
    offers = [(o.key.step, o.round, o.phase) for o in agents["a"].of_kind(pb.WORK)]
    assert offers == [(0, 1, "look"), (1, 1, "train"), (2, 2, "look"), (3, 2, "train")]
    report = shop.runs.detail(name).rounds[0]
    assert [(a.agent, a.phase) for a in report.agents] == [("a", "look"), ("b", "look"), ("a", "train"), ("b", "train")]


def test_an_agent_that_comes_later_gets_the_open_offer(shop: Workshop) -> None:
    shop.runs.start()
    name = shop.runs.submit(RUN, "later").run
    shop.join(["a"])
    wait_for(lambda: "1 of 2 are ready" in shop.summary(name).reason)
    shop.join(["b"])
    assert shop.ended(name).status == "done"


def test_different_classes_fail_the_run_and_name_both_lists(shop: Workshop) -> None:
    shop.join(["a"])
    shop.join(["b"], classes=("ant", "dog"))
    shop.runs.start()
    summary = shop.ended(shop.runs.submit(RUN, "classes").run)
    assert summary.status == "failed"
    assert "a has 3 (ant, bee, cat), b has 2 (ant, dog)" in summary.reason


def test_a_run_that_no_agent_can_serve_fails_with_their_reasons(shop: Workshop) -> None:
    def cannot(_device: Device, offer: pb.Offer) -> pb.Declined | None:
        return pb.Declined(why=pb.CANNOT, reason="needs 3 GB, has 1 GB")

    shop.join(["a", "b"], decline=cannot)
    shop.runs.start()
    summary = shop.ended(shop.runs.submit(RUN, "cannot").run)
    assert summary.status == "failed"
    assert "expected 2, got 0; agent a: needs 3 GB, has 1 GB; agent b" in summary.reason


def test_named_data_are_given_out_by_sorted_name_once_enough_agents_are_there(shop: Workshop) -> None:
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("[agents]", "[data]\nn_agents = 3\n[agents]"), "named").run
    agents = shop.join(["c", "a"], named=True) | shop.join(["b"], named=True)
    assert shop.ended(name).status == "done"
    indices = {n: (d.offers[0].data.index, d.offers[0].data.of) for n, d in agents.items()}
    assert indices == {"a": (0, 3), "b": (1, 3), "c": (2, 3)}
    assert all(offer.data == device.offers[0].data for device in agents.values() for offer in device.offers)


def test_only_agents_with_the_tags_take_part(shop: Workshop) -> None:
    shop.join(["a", "b"], tags=("pi",))
    other = shop.join(["c"])["c"]
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("min = 2", 'min = 2\ntags = ["pi"]'), "tags").run
    assert shop.ended(name).status == "done"
    assert other.offers == []


def test_stages_run_in_order_and_start_from_the_one_before(shop: Workshop) -> None:
    shop.join(["a", "b"])
    shop.runs.start()
    text = RUN + '[[stage]]\nname = "first"\n[[stage]]\nname = "second"\n'
    name = shop.runs.submit(text, "staged").run
    assert name == "staged.second"
    assert shop.ended(name).status == "done"
    assert [s.run for s in shop.runs.list()] == ["staged.first", "staged.second"]
    offer = next(o for o in shop.devices["a"].of_kind(pb.WORK) if o.key.run == name)
    result = shop.runs.export("staged.first")["weights"]
    start = shop.devices["a"].blobs.open(offer.task.payloads[0])
    for tensor in start:
        np.testing.assert_array_equal(start[tensor], result[tensor])


def test_a_stage_whose_predecessor_fails_fails_too(shop: Workshop) -> None:
    shop.join(["a"])
    shop.join(["b"], classes=("ant", "dog"))
    shop.runs.start()
    text = RUN + '[[stage]]\nname = "first"\n[[stage]]\nname = "second"\n'
    summary = shop.ended(shop.runs.submit(text, "staged").run)
    assert (summary.status, summary.reason) == ("failed", "it starts from run staged.first, which is failed")


def test_a_stage_that_ends_before_the_next_one_is_said_to_wait_leaves_its_reason(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal.write

    def later(self: Journal, query: str, *values: Any) -> None:
        if str(values[0]).startswith("waiting for run"):
            time.sleep(0.2)  # in which the first stage fails
        write(self, query, *values)

    monkeypatch.setattr(Journal, "write", later)
    shop.join(["a"])
    shop.join(["b"], classes=("ant", "dog"))
    shop.runs.start()
    *_, last = chain(shop, "first", "second")
    assert shop.ended(last).reason == "it starts from run staged.first, which is failed"


def chain(shop: Workshop, *stages: str) -> list[str]:
    shop.runs.submit(RUN + "".join(f'[[stage]]\nname = "{stage}"\n' for stage in stages), "staged")
    return [f"staged.{stage}" for stage in stages]


def test_a_stage_that_fails_ends_all_that_come_after_it(shop: Workshop) -> None:
    shop.runs.start()
    *_, last = chain(shop, "first", "second", "third", "fourth")
    shop.join(["a"])
    shop.join(["b"], classes=("ant", "dog"))
    summary = shop.ended(last)
    assert (summary.status, summary.reason) == ("failed", "it starts from run staged.third, which is failed")


@pytest.mark.parametrize("stopped", ["first", "second"])
def test_a_stage_that_is_stopped_ends_all_that_come_after_it(shop: Workshop, stopped: str) -> None:
    shop.runs.start()
    *_, last = chain(shop, "first", "second", "third")
    assert shop.runs.stop(f"staged.{stopped}").status == "stopped"
    assert shop.ended(last).status == "failed"


def test_a_run_that_is_over_is_not_taken_up_again(shop: Workshop) -> None:
    """As the thread that launches all stages of a file may find one that was launched, and ended, before its turn."""
    shop.runs.start()
    run = shop.runs.submit(RUN, "over").run
    shop.runs.stop(run)
    shop.join(["a", "b"])
    shop.runs._launch(run)
    shop.runs.close()
    assert shop.summary(run).status == "stopped"
    assert shop.devices["a"].offers == []


def test_stopping_ends_the_run_and_its_state_can_be_exported(shop: Workshop) -> None:
    shop.join(["a", "b"], before_submit=lambda _d, offer, header: header if offer.round == 1 else None)
    shop.runs.start()
    name = shop.runs.submit(RUN, "stopped").run
    wait_for(lambda: len(shop.devices["a"].of_kind(pb.WORK)) == 2)
    held = shop.devices["a"].of_kind(pb.WORK)[-1]
    assert shop.fleet.may_fetch("a", held.run.sha256)
    assert shop.runs.stop(name).status == "stopped"
    assert not shop.fleet.may_fetch("a", held.run.sha256), "the offer was not withdrawn"
    assert "weights" in shop.runs.export(name)


def test_nobody_may_fetch_for_a_run_that_is_over(shop: Workshop) -> None:
    """Not even one that has never answered."""
    answers = threading.Event()
    device = shop.join(["a"], decline=lambda *_: answers.wait(60) and None)["a"]
    shop.runs.start()
    run = shop.runs.submit(RUN, "over").run
    wait_for(lambda: device.of_kind(pb.PREPARE) != [])
    assert shop.fleet.may_fetch("a", device.offers[0].run.sha256)
    shop.runs.stop(run)
    assert not shop.fleet.may_fetch("a", device.offers[0].run.sha256)
    answers.set()


def test_a_run_can_be_stopped_while_its_engine_is_made(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Slow(Engine):
        def __init__(self, *given: Any, **named: Any) -> None:
            began.set()
            assert go_on.wait(60)
            super().__init__(*given, **named)

    monkeypatch.setattr(runs, "Engine", Slow)
    shop.join(["a", "b"])
    shop.runs.start()
    run = shop.runs.submit(RUN, "early").run
    assert began.wait(60)
    threading.Timer(0.2, go_on.set).start()
    assert shop.runs.stop(run).status == "stopped"
    wait_for(lambda: not shop.runs._threads)
    assert shop.summary(run).status == "stopped"


class Drawing:
    """The first State is being drawn, until the run or the server is told to stop."""

    def __init__(self) -> None:
        self.began = threading.Event()

    def __call__(self, _folder: Path, _request: initial.Request, check: Callable[[], None]) -> pb.Record:
        self.began.set()
        while True:
            check()
            time.sleep(0.01)


def test_a_server_that_ends_while_the_first_state_is_drawn_draws_it_when_it_is_back(shop: Workshop) -> None:
    drawing = Drawing()
    shop.runs = Runs(shop.journal, shop.blobs, shop.fleet, draw_first=drawing)
    shop.join(["a", "b"])
    run = shop.runs.submit(RUN, "first").run
    assert drawing.began.wait(60)
    shop.runs.close()
    assert shop.summary(run).status == "waiting"
    shop.runs = Runs(shop.journal, shop.blobs, shop.fleet, draw_first=drawn_here)
    shop.runs.start()
    assert shop.ended(run).status == "done"


def test_a_run_can_be_stopped_while_its_first_state_is_drawn(shop: Workshop) -> None:
    drawing = Drawing()
    shop.runs = Runs(shop.journal, shop.blobs, shop.fleet, draw_first=drawing)
    shop.join(["a", "b"])
    run = shop.runs.submit(RUN, "first").run
    assert drawing.began.wait(60)
    assert shop.runs.stop(run).status == "stopped"


def test_a_run_that_waits_for_the_disk_before_it_begins_can_be_stopped(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise LocalFault("cannot write")

    monkeypatch.setattr(runs, "Engine", full)
    shop.runs.start()
    run = shop.runs.submit(RUN, "full").run
    wait_for(lambda: "interrupted" in shop.runs.detail(run).summary.reason)
    summary = shop.runs.stop(run)
    assert (summary.status, summary.reason) == ("stopped", "stopped by an operator")


def test_a_run_that_meets_a_full_disk_as_it_is_stopped_ends(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, told = threading.Event(), threading.Event()

    def full(*_: Any, **__: Any) -> None:
        begun.set()
        told.wait(60)
        raise LocalFault("cannot write")

    monkeypatch.setattr(runs, "Engine", full)
    shop.runs.start()
    run = shop.runs.submit(RUN, "full").run
    assert begun.wait(60)
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(shop.runs.stop, run)
        wait_for(lambda: run in shop.runs._stopping)
        told.set()
        assert stopped.result(20).status == "stopped"


def test_a_stop_that_the_disk_does_not_take_says_so_and_is_done_when_there_is_room(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_status, full = Journal.set_status, threading.Event()

    def written(self: Journal, run: str, status: str, reason: str = "") -> None:
        if full.is_set():
            raise LocalFault("the disk is full")
        set_status(self, run, status, reason)

    monkeypatch.setattr(Journal, "set_status", written)
    monkeypatch.setattr(runs, "RETRY_S", 0.05)
    shop.join(["a", "b"], before_submit=lambda _d, offer, header: header if offer.round == 1 else None)
    shop.runs.start()
    run = shop.runs.submit(RUN, "full").run
    wait_for(lambda: len(shop.devices["a"].of_kind(pb.WORK)) == 2)
    full.set()
    with pytest.raises(LocalFault, match=r"^run full is not stopped yet: .*: the disk is full$"):
        shop.runs.stop(run)
    assert shop.summary(run).status == "running"
    full.clear()
    assert shop.ended(run).status == "stopped"
    assert len(shop.devices["a"].of_kind(pb.WORK)) == 2


def test_two_runs_share_the_agents(shop: Workshop) -> None:
    shop.join(["a", "b"])
    shop.runs.start()
    first, second = shop.runs.submit(RUN, "one").run, shop.runs.submit(RUN, "other").run
    one, other = shop.ended(first), shop.ended(second)
    assert one.status == other.status == "done"
    assert one.state_sha256 == other.state_sha256


def test_a_lossy_encoding_is_applied_by_the_runtime(shop: Workshop) -> None:
    agents = shop.join(["a", "b"])
    shop.runs.start()
    name = shop.runs.submit(RUN + '[wire]\nup = "float16"\ndown = "float16"\n', "half").run
    assert shop.ended(name).status == "done"
    sent = agents["a"].blobs.open(agents["a"].of_kind(pb.WORK)[1].task.payloads[0])
    for array in sent.values():
        np.testing.assert_array_equal(array, array.astype(np.float16).astype(np.float32))


def test_a_missing_transfer_report_delays_no_step_and_is_marked(shop: Workshop) -> None:
    agents = shop.join(["a", "b"])
    agents["b"].transfers = False
    shop.runs.start()
    began = time.monotonic()
    name = shop.runs.submit(RUN.replace("rounds = 2", "rounds = 5"), "slow").run
    wait_for(lambda: shop.summary(name).round == 5)
    wait_for(lambda: len(agents["b"].of_kind(pb.WORK)) == 5)
    assert time.monotonic() - began < 2 + 5  # five rounds that waited 2 s each would take 10
    shop.ended(name)
    for report in shop.runs.detail(name).rounds:
        assert [a.transfer_missing for a in report.agents] == [False, True]
        assert report.metrics["bytes_per_round"] == 150


def rounds_of(events: Watched) -> list[int]:
    """Those that somebody who watches hears of, in their order; none twice with the same transfers still awaited."""
    heard = []
    while (event := events.get(timeout=60)) is not None:
        if event.HasField("round"):
            heard.append((event.round.round, sum(agent.transfer_missing for agent in event.round.agents)))
    assert len(set(heard)) == len(heard), heard
    return list(dict.fromkeys(number for number, _ in heard))


def test_who_watches_hears_of_each_round_once_though_transfers_are_still_awaited(shop: Workshop) -> None:
    shop.join(["a"])
    shop.join(["b"], transfers=False)  # its rounds are complete only after a while
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("rounds = 2", "rounds = 5"), "slow").run
    wait_for(lambda: shop.summary(name).round >= 3)
    assert rounds_of(shop.runs.watch(name)) == [1, 2, 3, 4, 5]


def test_who_watches_while_the_last_evaluation_is_on_hears_of_the_last_round(shop: Workshop) -> None:
    go_on = threading.Event()

    def hold(_device: Device, offer: pb.Offer, header: pb.RecordHeader) -> pb.RecordHeader:
        assert offer.key.kind != pb.EVALUATE or go_on.wait(60)
        return header

    agents = shop.join(["a", "b"], before_submit=hold)
    shop.runs.start()
    name = shop.runs.submit(RUN.replace("every = 0", "every = 2"), "late").run
    wait_for(lambda: bool(agents["a"].of_kind(pb.EVALUATE)))
    events = shop.runs.watch(name)
    go_on.set()
    assert rounds_of(events) == [1, 2]


def test_who_watches_hears_of_a_round_whose_publishing_an_interruption_has_cut_off(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged, failed = merging.merged, []

    def once_without_disk(*given: Any) -> Any:
        if given[-1].round == 2 and not failed:
            failed.append(1)
            raise LocalFault("cannot read")
        return merged(*given)

    monkeypatch.setattr(merging, "merged", once_without_disk)
    monkeypatch.setattr(runs, "RETRY_S", 0.05)
    shop.join(["a"])
    shop.join(["b"], transfers=False)  # what its transfers cost is awaited for a while
    shop.runs.start()
    name = shop.runs.submit(RUN, "cut").run
    assert rounds_of(shop.runs.watch(name)) == [1, 2]
    assert failed


def test_an_agent_that_has_declined_before_the_offers_is_not_asked_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose answer to an engine that was interrupted is heard by the next."""
    gather = Tending.gather

    def after_a_word(self: Tending, collection: Collection, wanted: int) -> None:
        key = collection.offers["b"].key
        if key.step == 0:
            shop.fleet.heard("b", pb.AgentEvent(declined=pb.Declined(key=key, why=pb.SKIPPED, reason="no samples")))
        gather(self, collection, wanted)

    monkeypatch.setattr(Tending, "gather", after_a_word)
    agents = shop.join(["a", "b"])
    shop.runs.start()
    name = shop.runs.submit(RUN, "said").run
    shop.ended(name)
    assert [[a.outcome for a in report.agents] for report in shop.runs.detail(name).rounds] == [
        ["merged", "skipped"],
        ["merged", "merged"],
    ]
    assert [offer.round for offer in agents["b"].of_kind(pb.WORK)] == [2]


def test_a_full_disk_interrupts_the_run_and_it_goes_on_when_there_is_room(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync_file, full = files.fsync_file, threading.Event()

    def fsync(fd: int) -> None:
        if full.is_set() and threading.current_thread().name.startswith("run-"):
            raise OSError(28, "No space left on device")
        fsync_file(fd)

    def fill(_device: Device, _offer: pb.Offer, header: pb.RecordHeader) -> pb.RecordHeader:
        if header.key.step == 1 and not seen:
            full.set()
        return header

    seen: list[str] = []
    monkeypatch.setattr(files, "fsync_file", fsync)
    monkeypatch.setattr(runs, "RETRY_S", 0.05)
    shop.join(["a", "b"], before_submit=fill)
    shop.runs.start()
    name = shop.runs.submit(RUN, "full").run
    events = shop.runs.watch(name)
    while (event := events.get(timeout=60)) is not None:
        if event.note.startswith("interrupted"):
            seen.append(event.note)
            assert "No space left on device" in event.summary.reason
            full.clear()
    assert seen
    assert shop.summary(name).status == "done"
