"""What is promised of a dead letter: its message is done once all replicas have it. And engines that do not wait."""

import asyncio

from headrace.core.errors import RejectError
from headrace.flow.attempt import Attempts
from headrace.flow.burial import Burial
from headrace.flow.judge import DeadLetter
from headrace.flow.retry import RetryPolicy
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaSubscribeOptions
from headrace.kafka.codes import Code
from headrace.kafka.sending.result import ProduceResult
from headrace.kafka.sending.sender import Sender
from tests.conformance.kafka_mutants.group import group
from tests.conformance.kafka_mutants.producing_script import scripted
from tests.differential.mutants import instead
from tests.unit.flow.tools import steps
from tests.unit.kafka.consuming_script import TOPIC, member
from tests.unit.kafka.test_consuming_revoke import in_loop, until

SOON = RetryPolicy(initial=0.01, maximum=0.01, jitter=0)
OPTIONS = KafkaSubscribeOptions(create=False)


# --- checks --------------------------------------------------------------------------------------


class Reading(KafkaBroker):
    """Its member reads through a script."""

    def __init__(self, address, script):
        super().__init__(address, create=False)
        self._script = script

    def subscribe(self, topics, options=None):
        return member(self._script)


@in_loop
async def a_message_is_done_once_its_letter_is_stored():
    """While its letter is on its way nothing is committed, whoever asks, nor when that fails; then the message is."""
    with group(count=1) as made, scripted() as (address, producing):
        script = made.member()

        async def handler(delivery):
            script.journal.write("S", 0, delivery.offset)
            raise RejectError("never")

        async with (
            Reading(address, script) as broker,
            Worker(
                broker, TOPIC, handler, group="g", on_exhausted=DeadLetter(), retry=SOON, subscribe=OPTIONS
            ) as worker,
        ):
            script.give(0)
            try:
                for letters in (1, 2):
                    await until(lambda: len(producing.taken) == letters or worker.stats.dead_lettered)  # noqa: B023
                    await steps(10)
                    await worker._subscriptions[0].flush()
                    made.kept()
                    if letters == 1:
                        producing.answer(b"v", Code.LOCAL_MSG_TIMED_OUT)
                script.journal.write("F", 0, 0)
            finally:
                producing.answer_all()
            await until(lambda: made.committed() == 1)
        made.kept_to_the_end()


# --- mutants -------------------------------------------------------------------------------------


def done_first(original):
    async def bury(self, delivery, case):
        delivery.ack()
        return await original(self, delivery, case)

    return bury


def sent_by_the_way(original):
    sending = set()

    async def publish(self, *arguments):
        sending.add(asyncio.create_task(original(self, *arguments)))

    return publish


def handed_over_is_enough(_):
    async def send_one(self, message, timeout=None):
        await self.submit(message)
        return ProduceResult(topic=message.topic)

    return send_one


def failed_is_stored(original):
    async def publish(self, *arguments):
        await original(self, *arguments)

    return publish


EARLY = r"m0 committed 1 of 0 while 0 was not done"

MUTANTS = {
    "done before dead letter confirmed": {
        "done, then buried": (
            instead(Attempts, "_bury", done_first),
            a_message_is_done_once_its_letter_is_stored,
            EARLY,
        ),
        "done while the letter is sent": (
            instead(Burial, "publish", sent_by_the_way),
            a_message_is_done_once_its_letter_is_stored,
            EARLY,
        ),
        "done though its letter failed": (
            instead(Burial, "publish", failed_is_stored),
            a_message_is_done_once_its_letter_is_stored,
            EARLY,
        ),
        "done once the driver has the letter": (
            instead(Sender, "send_one", handed_over_is_enough),
            a_message_is_done_once_its_letter_is_stored,
            EARLY,
        ),
    },
}
