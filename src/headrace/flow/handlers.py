"""Handlers: a function's annotations -> what it is given; annotation -> codec; plain functions in threads."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import msgspec

from headrace.core.clock import Clock
from headrace.core.codec import BytesCodec, Codec, JsonCodec, TextCodec
from headrace.core.delivery import Delivery
from headrace.core.errors import CodecError, ConfigError
from headrace.core.message import Message

__all__ = ["Bound", "Handler", "Threads", "bind", "codec_for"]

T = TypeVar("T")
Handler = Callable[..., Any]
"""Your function: returns = processed, raises = not processed. ``async def``, or ``def`` (runs in a thread)."""

_Given = Callable[[Delivery], Any]
_PLAIN = {
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """A handler and how it is called: ``call(delivery)`` gives its coroutine, or its result if it is `sync`."""

    call: Callable[[Delivery], Any]
    sync: bool


def bind(handler: Handler, codec: Codec[Any] | None = None) -> Bound:
    """Read the annotations of `handler` once. ``ConfigError`` for what nobody could give it.

    First parameter: `Delivery` (also without annotation), `Message`, or a type for `codec_for`; `codec` overrides
    it. A second one may be annotated `Delivery` or `Message`.
    """
    if not callable(handler):
        raise ConfigError(f"handler must be a function, got {handler!r}")
    parameters = _parameters(handler)
    hints = _hints(handler, resolve=codec is None)
    first = _given(hints.get(parameters[0].name, Delivery), parameters[0], codec)
    second: _Given | None = None
    if len(parameters) > 1:
        second = _second(parameters[1], hints.get(parameters[1].name))
    return Bound(_caller(handler, first, second), sync=not _is_async(handler))


def _caller(handler: Handler, first: _Given, second: _Given | None) -> Callable[[Delivery], Any]:
    # Plain functions: they give the handler's own coroutine, a layer of our own would cost a coroutine per message.
    if second is not None:
        follow = second
        return lambda delivery: handler(first(delivery), follow(delivery))
    if first is _delivery:
        return handler
    return lambda delivery: handler(first(delivery))


def _delivery(delivery: Delivery) -> Delivery:
    return delivery


def _message(delivery: Delivery) -> Message:
    return delivery.message


def _given(annotation: Any, parameter: inspect.Parameter, codec: Codec[Any] | None) -> _Given:
    if codec is None:
        if annotation is Delivery:
            return _delivery
        if annotation is Message:
            return _message
        try:
            codec = codec_for(annotation)
        except ConfigError as error:
            raise ConfigError(f"handler's parameter {parameter.name}: {error}") from error
    decode = codec.decode
    return lambda delivery: decode(delivery.message.body)


def _second(parameter: inspect.Parameter, annotation: Any) -> _Given | None:
    if annotation is Delivery or annotation in ("Delivery", "headrace.Delivery"):
        return _delivery
    if annotation is Message or annotation in ("Message", "headrace.Message"):
        return _message
    if parameter.default is parameter.empty:
        raise ConfigError(f"handler's second parameter must be annotated Delivery or Message, got {parameter}")
    return None


def _parameters(handler: Handler) -> list[inspect.Parameter]:
    try:
        every = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"handler {handler!r} has no signature: wrap it in a function") from error
    plain = [parameter for parameter in every if parameter.kind in _PLAIN]
    needed = [parameter for parameter in every if parameter.default is parameter.empty]
    too_many = [p for p in needed if p not in plain[:2] and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not plain or too_many:
        raise ConfigError(f"handler must take one parameter, or two with a Delivery or Message, got {handler!r}")
    return plain


def _hints(handler: Handler, *, resolve: bool) -> Mapping[str, Any]:
    function = handler
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function)
    except Exception as error:
        if not resolve:  # a codec is given: only the second parameter matters, and its name is enough
            return dict(getattr(function, "__annotations__", {}))
        raise ConfigError(f"annotation of handler {handler!r} cannot be resolved ({error}): give codec=") from error


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


# -- annotation -> codec ------------------------------------------------------------------------------------------


def codec_for(annotation: Any) -> Codec[Any]:
    """The codec of a type: ``bytes``, ``str`` (strict UTF-8), else JSON checked against it.

    JSON: ``dict`` and other builtin containers, dataclass, ``msgspec.Struct``, ``TypedDict``, unions that msgspec
    supports, and pydantic models if pydantic is imported. ``ConfigError`` for any other type.
    """
    if annotation is bytes:
        return BytesCodec()
    if annotation is str:
        return TextCodec()
    if _is_pydantic(annotation):
        return PydanticCodec(annotation)
    try:
        supported = _is_supported(msgspec.inspect.type_info(annotation))
    except Exception as error:
        raise ConfigError(f"no codec for {annotation!r}: {error}") from error
    if not supported:
        raise ConfigError(f"no codec for {annotation!r}: give codec=, or take bytes")
    return JsonCodec[Any](annotation)


def _is_supported(info: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Msgspec takes any class and fails on the first message; a class it does not know is refused here instead."""
    if isinstance(info, msgspec.inspect.CustomType | msgspec.inspect.RawType | msgspec.inspect.ExtType):
        return False
    if id(info) in seen:
        return True
    seen |= {id(info)}
    for name in ("item_type", "key_type", "value_type", "type"):
        inner = getattr(info, name, None)
        if isinstance(inner, msgspec.inspect.Type) and not _is_supported(inner, seen):
            return False
    inners = [*getattr(info, "types", ()), *getattr(info, "item_types", ())]
    inners += [field.type for field in getattr(info, "fields", ())]
    return all(_is_supported(inner, seen) for inner in inners)


def _is_pydantic(annotation: object) -> bool:
    pydantic = sys.modules.get("pydantic")  # never imported by us
    return pydantic is not None and isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


class PydanticCodec(Generic[T]):
    """JSON by the pydantic model itself. Its errors are told without the input."""

    content_type: str | None = "application/json"

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, value: T) -> bytes:
        """JSON of a model."""
        try:
            return cast("Any", value).model_dump_json().encode()  # type: ignore[no-any-return]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CodecError(f"cannot encode {type(value).__name__}: {type(error).__name__}") from None

    def decode(self, body: bytes) -> T:
        """The model, checked."""
        try:
            return cast("T", self._model.model_validate_json(body))
        except (ValueError, RecursionError) as error:
            raise CodecError(f"not a {self._model.__name__}: {_faults(error)}") from None


def _faults(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return type(error).__name__
    found = errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"$.{'.'.join(map(str, one['loc']))}: {one['type']}" for one in found[:5])


# -- plain functions ------------------------------------------------------------------------------------------------


@dataclass
class Threads:
    """The threads in which plain functions run: started when needed, at most `count`."""

    count: int
    clock: Clock
    _pool: ThreadPoolExecutor | None = dataclasses.field(default=None, init=False)

    def step(self, call: Callable[[Delivery], Any]) -> Callable[[Delivery], Coroutine[Any, Any, None]]:
        """`call` as an ``async`` step that runs it in a thread, in the message's context."""

        async def run(delivery: Delivery) -> None:
            answer = await self._run(call, delivery)
            if inspect.isawaitable(answer):
                await answer

        return run

    async def _run(self, call: Callable[[Delivery], Any], delivery: Delivery) -> object:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="headrace-handler")
        # A copy: the message's own context cannot be entered while its coroutine is inside it.
        inside = copy_context()
        work = asyncio.get_running_loop().run_in_executor(self._pool, lambda: inside.run(call, delivery))
        self.clock.begin()
        try:
            # A thread cannot be stopped: a cancelled run lasts until the function returns, and if it returned, the
            # message is processed, so the cancellation has nothing left to undo.
            while not work.done():
                try:
                    await asyncio.wait((work,))
                except asyncio.CancelledError:
                    continue
            return work.result()
        finally:
            self.clock.end()

    def close(self) -> None:
        """No further runs; what still runs is left to itself."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
