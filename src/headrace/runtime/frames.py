"""Messages on a byte stream: four bytes that say how long a message is, then the message."""

from __future__ import annotations

_HEAD = 4


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(_HEAD, "little") + message


class Frames:
    """Cuts what arrives, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, oldest first."""
        rest = self._rest
        rest += data
        messages = []
        start = 0
        while len(rest) - start >= _HEAD:
            stop = start + _HEAD + int.from_bytes(rest[start : start + _HEAD], "little")
            if stop > len(rest):
                break
            messages.append(bytes(rest[start + _HEAD : stop]))
            start = stop
        del rest[:start]
        return messages
