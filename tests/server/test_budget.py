"""A shared number: first come, first served, nothing lost however takers come and go."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from server.budget import Budget


def test_who_came_first_is_served_first_even_when_less_would_fit() -> None:
    async def story() -> list[str]:
        budget, served = Budget(10), []

        async def taker(name: str, n: int) -> None:
            await budget.take(n)
            served.append(name)

        held = await budget.take(8)
        large, small = asyncio.create_task(taker("large", 5)), asyncio.create_task(taker("small", 1))
        await asyncio.sleep(0)
        assert not budget.try_take(1)  # it would fit, but others wait
        budget.give(held)
        await asyncio.gather(large, small)
        return served

    assert asyncio.run(story()) == ["large", "small"]


def test_those_behind_one_that_gave_up_are_served_at_once() -> None:
    async def story() -> None:
        budget = Budget(10)
        await budget.take(8)
        large, small = asyncio.create_task(budget.take(5)), asyncio.create_task(budget.take(1))
        await asyncio.sleep(0)
        large.cancel()
        assert await asyncio.wait_for(small, 60) == 1

    asyncio.run(story())


def test_more_than_there_is_takes_all_of_it() -> None:
    async def story() -> int:
        return await Budget(10).take(1000)

    assert asyncio.run(story()) == 10


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["keep", "cancel before", "cancel with the turn"]))))
def test_cancelled_takers_leave_nothing_taken_and_nobody_waiting(takers: list[tuple[int, str]]) -> None:
    async def story() -> None:
        budget = Budget(10)
        held = await budget.take(10)

        async def taker(n: int) -> None:
            taken = await budget.take(n)
            await asyncio.sleep(0)
            budget.give(taken)

        tasks = [(asyncio.create_task(taker(n)), fate) for n, fate in takers]
        await asyncio.sleep(0)
        for task, fate in tasks:
            if fate == "cancel before":
                task.cancel()
        budget.give(held)
        for task, fate in tasks:
            if fate == "cancel with the turn":  # its turn may have been given in this very moment
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*(task for task, _ in tasks), return_exceptions=True), 20)
        assert (budget.free, budget.contended) == (10, False)

    asyncio.run(story())
