"""Base64Encode / Base64Decode: a body as text, for wires that carry only text."""

from __future__ import annotations

import base64
import binascii

from headrace.core.errors import CodecError
from headrace.core.message import Message
from headrace.flow.compose import ReceiveRewrite, SendRewrite

__all__ = ["Base64Decode", "Base64Encode"]

_HEADER = "Content-Transfer-Encoding"
_CODING = "base64"


class Base64Encode(SendRewrite):
    """Send: standard alphabet, padded, no line breaks; sets ``Content-Transfer-Encoding: base64``."""

    def change(self, message: Message) -> Message:
        """The message with its body as base64. ``CodecError`` if it names a transfer encoding already."""
        if not message.has_body:
            return message
        if _HEADER in message.headers:
            raise CodecError(f"the message has a {_HEADER} already")
        return message.replace(body=base64.b64encode(message.body), headers=message.headers.add(_HEADER, _CODING))


class Base64Decode(ReceiveRewrite):
    """Receive: undo it where the header says ``base64``, in any case; any other message stays untouched."""

    def change(self, message: Message) -> Message:
        """The message as it was. Strict: ``CodecError`` for anything that `Base64Encode` does not write."""
        coding = message.headers.get(_HEADER)
        if coding is None or coding.strip().lower() != _CODING or not message.has_body:
            return message
        try:
            body = base64.b64decode(message.body, validate=True)
        except binascii.Error as error:
            raise CodecError(f"body is not base64: {error}") from None
        if base64.b64encode(body) != message.body:  # validate lets stray bits and doubled padding through
            raise CodecError("body is not base64: padding or last bits are wrong")
        return message.replace(body=body, headers=message.headers.remove(_HEADER))
