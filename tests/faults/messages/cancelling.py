"""Cancel a coroutine at its n-th suspension, as `Task.cancel` does it."""

import asyncio


class CancelAt:
    """``await CancelAt(coroutine, 3, 4)``: cancelled as it suspends for the third time, and again at the fourth.

    ``suspensions`` says how often it suspended, ``cancels`` how often it was cancelled.
    """

    def __init__(self, coroutine, *places):
        self._coroutine, self._places = coroutine, places
        self.suspensions = self.cancels = 0

    def __await__(self):
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        inner = self._coroutine.__await__()
        step, sent = inner.send, None
        while True:
            try:
                waiting = step(sent)
            except StopIteration as end:
                return end.value
            self.suspensions += 1
            if self.suspensions in self._places:
                self.cancels += 1
                loop.call_soon(task.cancel)
            try:
                step, sent = inner.send, (yield waiting)
            except BaseException as error:
                step, sent = inner.throw, error


async def at_every_await(scenario, *, twice):
    """Run `scenario(cancel)` for n = 1, 2, … until its coroutine has no n-th suspension; how many were cancelled.

    The scenario calls ``await cancel(coroutine)`` once: that gives the result, or ``None`` if it was cancelled.
    """
    for number in range(1, 1_000):
        fired = False

        async def cancel(coroutine, number=number):
            nonlocal fired
            run = CancelAt(coroutine, number, *([number + 1] if twice else []))

            async def driven():
                return await run

            try:
                return await asyncio.create_task(driven())
            except asyncio.CancelledError:
                return None
            finally:
                fired = run.cancels > 0

        await scenario(cancel)
        if not fired:
            return number - 1
    raise AssertionError("it suspends for ever")
