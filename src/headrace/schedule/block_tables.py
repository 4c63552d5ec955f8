"""Which blocks each sequence has: reserving, growing, sharing and copying them, and finding prefixes again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from headrace.schedule.block_pool import BlockPool
from headrace.schedule.prefix import block_hash, root_hash
from headrace.schedule.sequence import Sequence


class BlockTables:
    """Writes the block tables of sequences, on blocks of a pool that it alone uses.

    A sequence that runs has blocks for every token it knows from its admission on, so only a token sampled later, or
    a write to a shared block, can make it want another one. A sequence that waits has none.
    """

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool) -> None:
        self._pool = BlockPool(num_blocks)
        self._block_size = block_size
        self._enable_prefix_caching = enable_prefix_caching

    @property
    def usage(self) -> float:
        """Share of the blocks that sequences own, 0 … 1."""
        return self._pool.usage

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)

    def reads_cache(self, sequence: Sequence) -> bool:
        """Logprobs of a prompt need every position's logits, so who owes some computes the whole prompt."""
        return self._enable_prefix_caching and sequence.prompt_logprobs_from is None

    def find_cached(self, sequence: Sequence) -> list[int]:
        """Indexed blocks with the sequence's first tokens: full ones only, and never its last known token, which must
        be computed to sample the next one.
        """
        if not self.reads_cache(sequence):
            return []
        count = (sequence.num_known - 1) // self._block_size
        self._hash_blocks(sequence, count)
        return self._pool.match(sequence.block_hashes[:count])

    def fits(self, sequence: Sequence, cached: list[int], without: Iterable[Sequence] = ()) -> bool:
        """Whether `admit` would succeed once the sequences `without` had lost their blocks. Changes nothing."""
        released = Counter(block for other in without for block in other.block_table)
        return self._pool.fits(cached, self.blocks_for(sequence.num_known) - len(cached), released)

    def admit(self, sequence: Sequence, cached: list[int]) -> None:
        """Reserve blocks for all known tokens, the first of them the blocks that `find_cached` found."""
        self._pool.share(cached)
        new = self._pool.allocate(self.blocks_for(sequence.num_known) - len(cached))
        sequence.block_table = cached + new

    def grow(self, sequence: Sequence, copies: list[tuple[int, int]]) -> bool:
        """Make a running sequence's next write possible: a block for each known token, and the first block to be
        written its own. False, and nothing changed, if the pool has too few free blocks.

        A shared block is exchanged for a new one and `(shared, new)` is appended to `copies`. The sequence's share in
        the old one passes to whoever makes the copy: call `copied` when it is made. A beam that rests writes nothing.
        """
        table = sequence.block_table
        num_known = sequence.num_known
        if sequence.num_computed == num_known:
            return True
        missing = self.blocks_for(num_known) - len(table)
        place = sequence.num_computed // self._block_size
        shared = place < len(table) and self._pool.is_shared(table[place])
        if missing + shared > self._pool.num_free:
            return False
        if shared:
            source = table[place]
            (table[place],) = self._pool.allocate(1)
            copies.append((source, table[place]))
        elif place < len(table):
            self._pool.forget(table[place])
        if missing:
            table += self._pool.allocate(missing)
        return True

    def copied(self, copies: Iterable[tuple[int, int]]) -> None:
        """The copies have been made, or never will be: their sources lose the owner that `grow` left them."""
        self._pool.release(source for source, _ in copies)

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let `child` own all blocks of `parent` too."""
        self._pool.share(parent.block_table)
        child.block_table = parent.block_table.copy()

    def release(self, sequence: Sequence) -> None:
        """Take a sequence's blocks away. Those in the index can still be found until they are needed."""
        self._pool.release(sequence.block_table)
        sequence.block_table = []

    def index(self, sequence: Sequence, start: int, stop: int) -> None:
        """Positions `start` … `stop - 1` have been computed: let the blocks that this filled be found by others."""
        first, last = start // self._block_size, stop // self._block_size
        if first == last or not self._enable_prefix_caching:
            return
        self._hash_blocks(sequence, last)
        for place in range(first, last):
            self._pool.index(sequence.block_table[place], sequence.block_hashes[place])

    def _hash_blocks(self, sequence: Sequence, count: int) -> None:
        hashes = sequence.block_hashes
        for place in range(len(hashes), count):
            parent = hashes[-1] if hashes else root_hash(sequence.request.cache_salt)
            start = place * self._block_size
            hashes.append(block_hash(parent, sequence.tokens(start, start + self._block_size)))

    def check(self, sequences: Iterable[Sequence], copies: Iterable[tuple[int, int]]) -> None:
        """Raises `AssertionError` unless the pool is owned by exactly these sequences and these unmade copies, and each
        table is long enough, not longer than needed, and consists of blocks that hold the sequence's own tokens.
        """
        owners = Counter(source for source, _ in copies)
        for sequence in sequences:
            table = sequence.block_table
            owners.update(table)
            assert len(set(table)) == len(table), "a block twice in one table"
            assert self.blocks_for(sequence.num_computed) <= len(table) <= self.blocks_for(sequence.num_known)
            for place, block in enumerate(table):
                name = self._pool.name(block)
                assert name is None or name == sequence.block_hashes[place], "a block is indexed under a foreign name"
        self._pool.check(owners)
