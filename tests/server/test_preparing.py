"""Who is ready for a run, when agents come back as something else than they were."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import pb
from server import preparing
from server.runs import Runs
from tests.server.devices import CLASSES, RUN, Device
from tests.server.workshop import Workshop, drawn_here, wait_for

LONG = RUN.replace("rounds = 2", "rounds = 3")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with Workshop(tmp_path) as shop:
        yield shop


def held_back(device: Device, offer: pb.Offer, header: pb.RecordHeader) -> pb.RecordHeader | None:
    """Of round 2 nothing is sent, so that the run stands there."""
    return None if offer.round == 2 else header


def back(shop: Workshop, name: str, **changes: object) -> Device:
    device = shop.devices[name]
    device.leave()
    for field, value in changes.items():
        setattr(device, field, value)
    return device.join()


def prepared_n_train(shop: Workshop, agent: str) -> int:
    row = shop.journal.row("SELECT prepared FROM agents WHERE agent = ?", agent)
    assert row is not None
    return pb.Prepared.FromString(row["prepared"]).data.n_train


def standing_in_round_2(shop: Workshop) -> str:
    shop.join(["a", "b"], before_submit=held_back)
    shop.runs.start()
    run = shop.runs.submit(LONG).run
    for name in ("a", "b"):
        while shop.devices[name].offered(pb.WORK).round != 2:
            pass
    return run


def test_an_agent_that_comes_back_with_other_data_prepares_again_before_its_next_task(shop: Workshop) -> None:
    run = standing_in_round_2(shop)
    device = back(shop, "a", n_samples=77, before_submit=None)
    device.offered(pb.PREPARE)
    shop.devices["b"].before_submit = None
    back(shop, "b")
    assert shop.ended(run).status == "done"
    assert [len(d.of_kind(pb.PREPARE)) for d in shop.devices.values()] == [2, 1]
    assert prepared_n_train(shop, "a") == 77


def test_a_tag_or_a_reconnection_prepares_nobody_again(shop: Workshop) -> None:
    run = standing_in_round_2(shop)
    for name in ("a", "b"):
        back(shop, name, tags=("shelf",), before_submit=None)
    assert shop.ended(run).status == "done"
    assert [len(d.of_kind(pb.PREPARE)) for d in shop.devices.values()] == [1, 1]


def test_an_agent_that_can_no_longer_take_part_gets_no_more_tasks_and_keeps_its_place_in_the_list(
    shop: Workshop,
) -> None:
    """Its number among the agents that the run knows: lists of agents count on it."""

    def cannot(_device: Device, offer: pb.Offer) -> pb.Declined | None:
        return pb.Declined(why=pb.CANNOT, reason="other classes") if offer.key.kind == pb.PREPARE else None

    run = standing_in_round_2(shop)
    shop.join(["c"])
    shop.devices["c"].offered(pb.PREPARE)
    device = back(shop, "a", n_samples=5, decline=cannot, before_submit=None)
    device.offered(pb.PREPARE)
    shop.devices["b"].before_submit = None
    back(shop, "b")
    assert shop.ended(run).status == "done"
    assert {offer.round for offer in device.of_kind(pb.WORK)} == {1, 2}
    assert {offer.round for offer in shop.devices["c"].of_kind(pb.WORK)} == {3}
    known = {row["agent"] for row in shop.journal.rows("SELECT agent FROM agents WHERE prepared IS NOT NULL")}
    assert known == {"a", "b", "c"}


def test_an_agent_that_does_not_answer_delays_the_start_for_so_long_and_is_taken_in_later(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def hung(_device: Device, _offer: pb.Offer) -> None:
        assert answers.wait(60)

    monkeypatch.setattr(preparing, "PATIENCE_S", 0.5)
    shop.join(["c"], decline=hung)
    run = standing_in_round_2(shop)
    answers.set()
    assert shop.devices["c"].offered(pb.PREPARE)
    for name in ("a", "b"):
        back(shop, name, before_submit=None)
    assert shop.ended(run).status == "done"
    assert {offer.round for offer in shop.devices["c"].of_kind(pb.WORK)} == {3}


def test_the_operator_is_told_whose_answer_a_run_waits_for(shop: Workshop) -> None:
    answers = threading.Event()

    def hung(_device: Device, _offer: pb.Offer) -> None:
        assert answers.wait(60)

    shop.join(["a"])
    shop.join(["c", "d"], decline=hung)
    shop.runs.start()
    run = shop.runs.submit(RUN).run
    wait_for(lambda: shop.summary(run).reason == "waiting for agents: 1 of 2 are ready, no answer yet from c, d")
    shop.join(["b"])
    wait_for(lambda: shop.summary(run).reason == "waiting for agents: enough are ready, no answer yet from c, d")
    answers.set()
    assert shop.ended(run).status == "done"


def test_other_data_that_came_while_the_server_was_down_are_prepared_too(shop: Workshop) -> None:
    run = standing_in_round_2(shop)
    for device in shop.devices.values():
        device.leave()
    shop.runs.close()
    shop.runs = Runs(shop.journal, shop.blobs, shop.fleet, draw_first=drawn_here)
    shop.runs.start()
    for device in shop.devices.values():
        device.before_submit = None
    shop.devices["a"].n_samples = 77
    for device in shop.devices.values():
        device.join()
    assert shop.ended(run).status == "done"
    assert prepared_n_train(shop, "a") == 77
    assert len(shop.devices["b"].of_kind(pb.PREPARE)) == 1


def test_before_the_start_an_agent_that_declined_its_new_data_is_not_counted(shop: Workshop) -> None:
    def cannot(_device: Device, offer: pb.Offer) -> pb.Declined | None:
        return pb.Declined(why=pb.CANNOT, reason="other classes")

    shop.join(["a"], classes=("ant", "dog"))
    shop.runs.start()
    run = shop.runs.submit(RUN).run
    wait_for(lambda: "1 of 2 are ready" in shop.summary(run).reason)
    back(shop, "a", n_samples=5, decline=cannot).offered(pb.PREPARE)
    wait_for(lambda: "0 of 2 are ready" in shop.summary(run).reason)
    back(shop, "a", n_samples=6, decline=None, classes=CLASSES)
    shop.join(["b"])
    assert shop.ended(run).status == "done"


def test_an_agent_whose_counts_are_not_of_its_classes_is_left_out(shop: Workshop) -> None:
    shop.join(["a"], claims=pb.DataFacts(has_counts=True, counts=[10]))
    shop.runs.start()
    ended = shop.ended(shop.runs.submit(RUN.replace("min = 2", "min = 1")).run)
    assert ended.status == "failed"
    assert f"its data: expected samples of {len(CLASSES)} classes, got 1 counts" in ended.reason


def test_one_who_answers_for_the_time_before_the_classes_were_settled_is_asked_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own two classes are no answer to the run as it is now; it may well have them under the run's three."""
    answers, asked = threading.Event(), []

    def hung(device: Device, offer: pb.Offer) -> None:
        asked.append(offer.run.sha256)
        assert answers.wait(60)
        device.classes = CLASSES if len(asked) > 1 else CLASSES[:2]

    monkeypatch.setattr(preparing, "PATIENCE_S", 0.5)
    shop.join(["c"], decline=hung)
    run = standing_in_round_2(shop)
    answers.set()
    for _ in range(2):
        assert shop.devices["c"].offered(pb.PREPARE)  # and answered
    for name in ("a", "b"):
        back(shop, name, before_submit=None)
    assert shop.ended(run).status == "done"
    assert asked[0] != asked[1]
    assert {offer.round for offer in shop.devices["c"].of_kind(pb.WORK)} == {3}
