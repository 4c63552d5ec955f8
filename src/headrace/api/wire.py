"""Base of the bodies of responses. A field set to `UNSET` is left out; None is written as null.

Chunks are encoded once a token, so all of them are msgspec structs and nothing is validated.
"""

from __future__ import annotations

import msgspec

encode = msgspec.json.Encoder().encode

LOWEST = -9999.0
"""Written instead of minus infinity, which JSON has no name for."""


class Wire(msgspec.Struct):
    """Base of all response bodies."""


def finite(number: float) -> float:
    return max(number, LOWEST)
