"""The window of async publishes: never more than its slots, first come first served, nothing lost by cancelling."""

import asyncio
import random

import pytest

from headrace.jetstream.publishing.window import Window


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_slots_go_to_the_first_in_line():
    async def story():
        window = Window(2)
        await window.take()
        await window.take()
        got = []

        async def take(number):
            await window.take()
            got.append(number)

        tasks = [asyncio.create_task(take(number)) for number in range(4)]
        await turns()
        assert window.full
        assert got == []
        window.free()
        assert window.full  # it is the first one's, who has not run yet: a newcomer waits behind
        await turns()
        assert got == [0]
        window.free()
        window.free()
        await turns()
        assert got == [0, 1, 2]
        assert window.taken == 2
        window.free()
        await asyncio.gather(*tasks)
        assert got == [0, 1, 2, 3]

    asyncio.run(story())


@pytest.mark.parametrize("freed_first", [False, True])
def test_cancelling_takes_no_slot(freed_first):
    async def story():
        window = Window(1)
        await window.take()
        first, second = (asyncio.create_task(window.take()) for _ in range(2))
        await turns()
        if freed_first:
            window.free()  # handed to the first one, which is cancelled before it runs
            first.cancel()
        else:
            first.cancel()
            await turns()
            window.free()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert second.exception() is None
        assert window.taken == 1
        window.free()
        assert window.taken == 0
        assert not window.full

    asyncio.run(story())


def test_empty_waits_until_all_are_free():
    async def story():
        window = Window(3)
        await window.empty()
        await window.take()
        await window.take()
        waiting = [asyncio.create_task(window.empty()) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        window.free()
        await turns()
        assert not waiting[1].done()
        window.free()
        await asyncio.wait(waiting)
        assert [task.cancelled() for task in waiting] == [True, False, False]

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_takers_and_cancels(seed):
    """Whatever is cancelled when: never more than the slots, and at the end none is taken."""
    random.seed(seed)

    async def story():
        window = Window(3)
        running = most = 0

        async def user():
            nonlocal running, most
            await window.take()
            running += 1
            most = max(most, running)
            try:
                await turns(random.randrange(5))
            finally:
                running -= 1
                window.free()

        tasks = [asyncio.create_task(user()) for _ in range(50)]
        for _ in range(30):
            await turns(random.randrange(3))
            random.choice(tasks).cancel()
        await asyncio.wait(tasks)
        assert most == 3
        assert window.taken == 0
        assert not window.full

    asyncio.run(story())
