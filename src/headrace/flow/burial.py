"""Burial: publishes dead letters and says whether a publish that failed may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core.broker import Broker
from headrace.core.delivery import Delivery
from headrace.core.errors import BrokerError, ConfigError, Fault, HeadraceError, PublishError
from headrace.flow.judge import DeadLetter
from headrace.flow.letter import SOURCE, letter_of

__all__ = ["Burial", "BurialFault"]


@dataclass(frozen=True, slots=True)
class BurialFault:
    """Why a letter was not stored; ``final`` = sending it again cannot help."""

    error: BaseException
    final: bool


class Burial:
    """Publishes the letters of one worker. With `create` it declares their topics before the first letter."""

    def __init__(self, broker: Broker, *, create: bool) -> None:
        self._broker = broker
        self._create = create
        self._declared: set[tuple[int, str]] = set()

    async def declare(self, policy: DeadLetter, topic: str) -> None:
        """The topic exists afterwards."""
        broker = policy.broker or self._broker
        if self._create and (id(broker), topic) not in self._declared:
            await broker.declare(topic)
            self._declared.add((id(broker), topic))

    async def publish(self, delivery: Delivery, error: BaseException, policy: DeadLetter) -> BurialFault | None:
        """Store the letter of `delivery`; ``None`` = it is stored."""
        message = delivery.message
        topic = policy.target(message.topic)
        broker = policy.broker or self._broker
        if topic in (message.topic, message.headers.get(SOURCE)):
            # A -> B -> A would carry it round for ever; with another broker in between nobody can tell.
            return BurialFault(ConfigError(f"dead letter of {message.topic} would go back to {topic}"), final=True)
        try:
            await self.declare(policy, topic)
            await broker.publish(letter_of(delivery, error, topic=topic, now_ns=broker.clock.now_ns()))
        except PublishError as fault:
            return BurialFault(fault, final=fault.fault is Fault.REJECTED)
        except BrokerError as fault:
            return BurialFault(fault, final=False)
        except HeadraceError as fault:
            return BurialFault(fault, final=True)
        except Exception as fault:  # noqa: BLE001  (somebody's broker; the message must not be lost over it)
            return BurialFault(fault, final=False)
        return None
