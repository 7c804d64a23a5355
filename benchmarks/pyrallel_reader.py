"""Reading with pyrallel-consumer: ``python -m benchmarks.pyrallel_reader ADDRESS TOPIC GROUP COUNT [tuned]``.

Runs in its own environment, where nothing of headrace can be imported. Prints as JSON how many records it handled, all
or those of 30 seconds, and wall and CPU seconds from the first to the last.
"""

import asyncio
import json
import logging
import sys
import time

from pyrallel_consumer import KafkaConfig, PyrallelConsumer

JOINING, PATIENCE = 30, 30
READING = {
    "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 16_384, "check.crcs": True,
}  # fmt: skip


class Config(KafkaConfig):
    """Its own settings, and those with which all others read: it has no field for what goes to the driver."""

    def get_consumer_config(self):
        return super().get_consumer_config() | READING


def tune(config):
    """The fastest that was found: by 1,000 a poll, its default, it stops and starts the driver all the time."""
    config.parallel_consumer.poll_batch_size = 100
    config.parallel_consumer.execution.max_in_flight = 200


class Arrivals:
    """Counts, and looks at both clocks at the first record, and at the last or when it is asked."""

    def __init__(self, count):
        self.count = count
        self.handled = 0
        self.start = None
        self.sample = None
        self.begun, self.done = asyncio.Event(), asyncio.Event()

    async def one(self, item):
        if self.start is None:
            self.start = time.perf_counter(), time.process_time()
            self.begun.set()
        self.handled += 1
        if self.handled == self.count:
            self.look()
            self.done.set()

    def look(self):
        wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        self.sample = {"handled": self.handled, "seconds": wall, "cpu": cpu}


async def main(address, topic, group, count, how=""):
    logging.getLogger("pyrallel_consumer").setLevel(logging.ERROR)  # it says each pause, several in a second
    arrivals = Arrivals(int(count))
    config = Config(BOOTSTRAP_SERVERS=address, CONSUMER_GROUP=group)
    if how == "tuned":
        tune(config)
    consumer = PyrallelConsumer(config=config, worker=arrivals.one, topic=topic)
    await consumer.start()
    try:
        await asyncio.wait_for(arrivals.begun.wait(), JOINING)
        await asyncio.wait_for(arrivals.done.wait(), PATIENCE)
    except TimeoutError:
        if not arrivals.handled:
            sys.exit(f"nothing came within {JOINING} s")
        arrivals.look()
    finally:
        await consumer.stop()
    print(json.dumps(arrivals.sample))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
