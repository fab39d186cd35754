"""What an offer does to those that are in hand."""

import pytest

from common import pb
from edge_client.offers import InHand, Offers


def offer(step: int, kind: "pb.TaskKind" = pb.WORK, *, run: str = "r", agent: str = "a") -> pb.Offer:
    return pb.Offer(key=pb.TaskKey(run=run, step=step, agent=agent, kind=kind))


def in_hand(first: pb.Offer) -> tuple[Offers, InHand]:
    """Offers of which one runs."""
    offers = Offers()
    assert offers.put(first) is None
    running = offers.take()
    assert running is not None
    return offers, running


WORK_AND_EVALUATIONS = [
    (offer(0), offer(1)),
    (offer(0), offer(0, pb.EVALUATE)),
    (offer(0, pb.EVALUATE), offer(1)),
    (offer(5), offer(4)),  # the server was restored from a backup
]


@pytest.mark.parametrize(("older", "newer"), WORK_AND_EVALUATIONS)
def test_newer_offer_of_its_run_withdraws_what_runs(older: pb.Offer, newer: pb.Offer) -> None:
    """The step that the older one belongs to is closed, and the agent was away when it was said."""
    offers, running = in_hand(older)
    assert offers.put(newer) is running
    assert running.withdrawn.is_set()
    assert offers.put(newer) is None  # again, as after a join
    assert offers.all() == [older, newer]


@pytest.mark.parametrize(("older", "newer"), WORK_AND_EVALUATIONS)
def test_newer_offer_of_its_run_takes_the_place_of_one_that_waits(older: pb.Offer, newer: pb.Offer) -> None:
    offers, running = in_hand(offer(0, run="other"))
    offers.put(older)
    assert offers.put(newer) is None
    assert offers.all() == [running.offer, newer]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (offer(0), offer(1, run="other")),
        (offer(0), offer(1, agent="other")),
        (offer(3), offer(0, pb.PREPARE)),  # its host came back with other data: both are open
        (offer(0, pb.PREPARE), offer(3)),
        (offer(0), offer(0)),
    ],
)
def test_what_the_server_may_still_want_stays(older: pb.Offer, newer: pb.Offer) -> None:
    offers, running = in_hand(older)
    assert offers.put(newer) is None
    assert not running.withdrawn.is_set()
    waiting = offers.all()[1:]
    offers.put(older)  # again
    assert offers.all()[1:] == waiting
    offers, _ = in_hand(offer(0, run="third", agent=older.key.agent))
    offers.put(older)
    offers.put(newer)
    assert older in offers.all()


def test_reply_that_is_on_its_way_goes_on() -> None:
    """It may be here: the next offer can be quicker than its receipt, which says what became of it."""
    offers, running = in_hand(offer(0))
    running.is_submitting = True
    assert offers.put(offer(1)) is None
    assert not running.withdrawn.is_set()


def test_what_was_declined_may_be_offered_anew_at_once() -> None:
    """As after OTHER_MEMORY: the server's new offer can be here before the worker is done with the old one."""
    offers, running = in_hand(offer(0))
    running.is_answered = True
    again = pb.Offer(key=running.offer.key, memory_step=7)
    assert offers.put(again) is None
    offers.done(running)
    taken = offers.take()
    assert taken is not None
    assert taken.offer.memory_step == 7
