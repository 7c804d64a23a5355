"""The checks of a server, several at once and each in an account of its own: what they do most is wait."""

import asyncio

from headrace.testing.conformance import broker_checks, stream_checks
from tests.conformance.engines import PATIENCE, brokers, capabilities, managers

AT_ONCE = 12


def accounts(count):
    """Server configuration: accounts of which none sees the streams of another."""
    each = "".join(f"A{n} {{ jetstream: enabled, users: [{{user: u{n}, password: p}}] }}\n" for n in range(count))
    return f"accounts {{\n{each}}}\n"


def judged(wanted, url_of):
    """The verdicts of `run_all`. Many checks measure time: what is wrong while others run has another chance, alone.

    It needs twice as many accounts as checks.
    """
    found = run_all(wanted, url_of)
    for number, which in enumerate(wanted, len(wanted)):
        if isinstance(found[which], AssertionError):
            found |= run_all([which], lambda _, number=number: url_of(number))
    return found


def run_all(wanted, url_of):
    """Run the checks of these (kind, name); what each raised, ``None`` for nothing, or why it was not asked to run."""
    promised = capabilities(url_of(0))
    checks = {("broker", check.name): check for check in broker_checks(promised)}
    checks |= {("stream", check.name): check for check in stream_checks(promised)}
    openers = {"broker": brokers, "stream": managers}

    async def run_each():
        room = asyncio.Semaphore(AT_ONCE)

        async def run_one(number, which):
            check = checks[which]
            if check.excluded:
                return check.excluded
            async with room:
                try:
                    await asyncio.wait_for(check.run(openers[which[0]](url_of(number))), PATIENCE)
                except Exception as error:
                    return error
            return None

        verdicts = await asyncio.gather(*(run_one(number, which) for number, which in enumerate(wanted)))
        return dict(zip(wanted, verdicts, strict=True))

    return asyncio.run(run_each())
