"""GroupConsumer and PartitionConsumer: workers that open their broker themselves. No option is declared here again."""

from __future__ import annotations

from contextlib import AsyncExitStack

from headrace.core.errors import ConfigError
from headrace.flow.attempt import Rules, Step
from headrace.flow.events import Events
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.reading import KafkaPartitionOptions

__all__ = ["GroupConsumer", "PartitionConsumer"]


class _Preset(Worker):
    """A broker that is found closed is opened for the run and closed after it; an open one is shared."""

    def _assemble(self, step: Step, rules: Rules, events: Events, timeout: float | None) -> None:
        if not isinstance(self._broker, KafkaBroker):
            raise ConfigError(f"broker must be a KafkaBroker, got {type(self._broker).__name__}")
        super()._assemble(step, rules, events, timeout)

    async def _open(self, stack: AsyncExitStack) -> None:
        if isinstance(self._broker, KafkaBroker) and await self._broker.open():
            stack.push_async_callback(self._broker.aclose)
        await super()._open(stack)


class GroupConsumer(_Preset):
    """A `Worker` that is a member of a group, and opens its `KafkaBroker` if that is not open. ``group`` is needed."""

    def _assemble(self, step: Step, rules: Rules, events: Events, timeout: float | None) -> None:
        if self._options.group is None or isinstance(self._options, KafkaPartitionOptions):
            raise ConfigError(f"a GroupConsumer needs a group, got {self._options.group!r}")
        super()._assemble(step, rules, events, timeout)

    def __str__(self) -> str:
        return f"group-consumer({self._options.group}:{','.join(self._topics)})"


class PartitionConsumer(_Preset):
    """A `Worker` that reads one partition from checkpoints of its own; see `KafkaPartitionOptions`.

    It opens its `KafkaBroker` if that is not open.
    """

    def _assemble(self, step: Step, rules: Rules, events: Events, timeout: float | None) -> None:
        if not isinstance(self._options, KafkaPartitionOptions):
            raise ConfigError(f"a PartitionConsumer needs KafkaPartitionOptions, got {type(self._options).__name__}")
        super()._assemble(step, rules, events, timeout)

    def __str__(self) -> str:
        options = self._options
        number = options.partition if isinstance(options, KafkaPartitionOptions) else "?"
        return f"partition-consumer({self._topics[0]}:{number})"
