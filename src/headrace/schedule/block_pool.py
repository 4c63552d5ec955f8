"""The blocks of the KV cache: who owns each, which are free, and which hold a prefix worth finding again."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

_NOBODY: Mapping[int, int] = {}


class BlockPool:
    """Counts the owners of blocks 1 … `num_blocks` and keeps the index of the prefix cache.

    Block 0 is the null block: it pads block tables on the device and is never handed out. A block is in one of three
    states: *owned* by one or more sequences, *free* with nothing worth keeping, or free and *cached*: nobody owns it,
    but the index still knows what it holds, so the next sequence with that prefix takes it back with `share`.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._owners = [0] * (num_blocks + 1)
        self._hash_of: list[bytes | None] = [None] * (num_blocks + 1)
        self._block_of: dict[bytes, int] = {}
        # A stack: what was freed last is taken first, and blocks never used lie at the bottom in ascending order, so
        # the part of the cache that has ever been written (resident memory, on a CPU) grows only when it must.
        self._free = list(range(num_blocks, 0, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can hand out, cached ones included."""
        return len(self._free) + len(self._cached)

    @property
    def usage(self) -> float:
        """Share of the blocks that somebody owns, 0 … 1."""
        return 1 - self.num_free / self.num_blocks

    def fits(self, cached: list[int], num_new: int, released: Mapping[int, int] = _NOBODY) -> bool:
        """Whether `share(cached)` and then `allocate(num_new)` would succeed, once each block of `released` had lost
        that many owners. Changes nothing.
        """
        freed = sum(self._owners[block] == count for block, count in released.items())
        revived = sum(self._owners[block] == released.get(block, 0) for block in cached)
        return self.num_free + freed - revived >= num_new

    def allocate(self, count: int) -> list[int]:
        """`count` blocks with one owner each and unknown contents. Ask first: `count` must not exceed `num_free`.

        Cached blocks come last, the least recently used one first, and leave the index.
        """
        if count > self.num_free:
            raise ValueError(f"{count} blocks wanted, {self.num_free} free")
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in blocks:
            self._owners[block] = 1
        return blocks

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        self.forget(block)
        return block

    def share(self, blocks: Iterable[int]) -> None:
        """One more owner for each of `blocks`, which are owned or cached."""
        for block in blocks:
            if self._owners[block] == 0:
                del self._cached[block]
            self._owners[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One owner less for each of `blocks`, which are a block table or part of one.

        The last block is released first: a prefix is of use without its continuation, not the other way round, so the
        end of a table must be evicted before its beginning.
        """
        for block in reversed(list(blocks)):
            self._owners[block] -= 1
            if self._owners[block] == 0:
                if self._hash_of[block] is None:
                    self._free.append(block)
                else:
                    self._cached[block] = None

    def is_shared(self, block: int) -> bool:
        """Whether a block has more than one owner, so that none of them may write to it."""
        return self._owners[block] > 1

    def index(self, block: int, name: bytes) -> None:
        """Let an owned block, full and computed, be found by `name`. Does nothing if another block has that name."""
        if name not in self._block_of:
            self.forget(block)
            self._block_of[name] = block
            self._hash_of[block] = name

    def forget(self, block: int) -> None:
        """Take a block out of the index, if it is there: it is about to be written."""
        name = self._hash_of[block]
        if name is not None:
            del self._block_of[name]
            self._hash_of[block] = None

    def match(self, names: Iterable[bytes]) -> list[int]:
        """The blocks of the longest run of indexed `names` from the first on. They are not owned: `share` them."""
        blocks = []
        for name in names:
            block = self._block_of.get(name)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def name(self, block: int) -> bytes | None:
        """What the index calls a block; None if it is not in the index."""
        return self._hash_of[block]

    def check(self, owners: Counter[int]) -> None:
        """Raises `AssertionError` unless the counts equal `owners` and every block is in exactly one state."""
        every = range(1, self.num_blocks + 1)
        counted = {block: count for block, count in enumerate(self._owners) if count}
        assert counted == dict(owners), f"owners {dict(owners)}, counted {counted}"
        assert sorted([*counted, *self._free, *self._cached]) == list(every), "a block is lost or in two states"
        assert all(self._hash_of[block] is None for block in self._free), "a free block is still indexed"
        assert all(self._hash_of[block] is not None for block in self._cached), "a cached block is not indexed"
        named = {name: block for block in every if (name := self._hash_of[block]) is not None}
        assert named == self._block_of, "the index and the blocks' names differ"
