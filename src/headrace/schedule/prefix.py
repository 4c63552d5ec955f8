"""Names for full blocks of tokens, so that equal prefixes can be found again.

A block's name depends on its own tokens, on the name of the block before it and, at the root, on whatever else must
be equal for two sequences to share keys and values. It is a BLAKE2b digest of 128 bits and not Python's `hash`: a
collision would show one caller's context to another.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

_DIGEST_BYTES = 16


def root_hash(cache_salt: str | None) -> bytes:
    """The parent of a sequence's first block. No salt and the empty salt are different roots."""
    # Salts come from JSON, which can carry lone surrogates: they must not be able to stop a step.
    salt = b"" if cache_salt is None else b"salt:" + cache_salt.encode(errors="surrogatepass")
    return blake2b(salt, digest_size=_DIGEST_BYTES, person=b"root").digest()


def block_hash(parent: bytes, token_ids: list[int]) -> bytes:
    """The name of a full block that holds `token_ids` and follows the block (or root) named `parent`."""
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=_DIGEST_BYTES, person=b"block").digest()
