from __future__ import annotations

from collections import Counter

import pytest

from headrace.schedule.block_pool import BlockPool


def names(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def test_the_null_block_is_never_handed_out() -> None:
    pool = BlockPool(5)
    assert pool.allocate(5) == [1, 2, 3, 4, 5]
    assert pool.num_free == 0
    with pytest.raises(ValueError, match="1 blocks wanted, 0 free"):
        pool.allocate(1)


def test_a_freed_block_is_used_again_before_a_fresh_one() -> None:
    pool = BlockPool(10)
    first = pool.allocate(3)
    pool.release(first[1:])
    assert sorted(pool.allocate(2)) == [2, 3]
    assert pool.allocate(1) == [4]


def test_a_block_is_free_when_its_last_owner_lets_go() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    assert not pool.is_shared(1)
    pool.share(blocks)
    assert pool.is_shared(1)
    pool.release(blocks)
    assert (pool.num_free, pool.usage) == (1, 0.5)
    pool.release(blocks)
    assert (pool.num_free, pool.usage) == (2, 0.0)
    pool.check(Counter())


def test_match_is_the_longest_run_from_the_start() -> None:
    pool = BlockPool(4)
    for block, name in zip(pool.allocate(3), names("a", "b", "d"), strict=True):
        pool.index(block, name)
    assert pool.match(names("a", "b", "c", "d")) == [1, 2]
    assert pool.match(names("x", "a")) == []


def test_the_first_block_with_a_name_keeps_it() -> None:
    pool = BlockPool(2)
    pool.allocate(2)
    pool.index(1, b"a")
    pool.index(2, b"a")
    assert pool.match(names("a")) == [1]
    assert pool.name(2) is None
    pool.index(1, b"a")  # again, by its own owner
    assert pool.name(1) == b"a"


def test_a_cached_block_can_be_taken_back() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.index(1, b"a")
    pool.release(blocks)
    assert pool.num_free == 2
    pool.share(pool.match(names("a")))
    assert pool.num_free == 1
    pool.check(Counter({1: 1}))


def test_cached_blocks_are_evicted_last_and_the_longest_unused_first() -> None:
    pool = BlockPool(5)
    old, new = pool.allocate(2), pool.allocate(2)
    for block, name in zip(old + new, names("old0", "old1", "new0", "new1"), strict=True):
        pool.index(block, name)
    pool.release(old)
    pool.release(new)
    assert pool.allocate(1) == [5], "the block without contents goes first"
    assert pool.allocate(1) == [2], "then the end of the oldest table"
    assert pool.match(names("old0", "old1")) == [1]
    pool.share([1])
    pool.release([1])  # used just now
    assert pool.allocate(2) == [4, 3]
    assert pool.match(names("old0")) == [1]
    assert pool.match(names("new0")) == []


def test_a_forgotten_block_is_not_found_and_not_kept() -> None:
    pool = BlockPool(1)
    blocks = pool.allocate(1)
    pool.index(1, b"a")
    pool.forget(1)
    assert pool.match(names("a")) == []
    pool.release(blocks)
    pool.check(Counter())


def test_fits_counts_what_is_revived_and_what_is_released() -> None:
    pool = BlockPool(4)
    table = pool.allocate(2)
    pool.index(1, b"a")
    pool.release([1])
    assert pool.num_free == 3
    assert pool.fits([], 3)
    assert not pool.fits([1], 3), "taking block 1 back leaves two"
    assert pool.fits([1], 2)
    assert pool.fits([1], 3, {2: 1}), "block 2 would be free"
    pool.share([table[1]])
    assert not pool.fits([1], 3, {2: 1}), "block 2 would still have an owner"
    assert pool.fits([1], 3, {2: 2})
    assert not pool.fits([2], 4, {2: 2}), "a released block that is shared again is not free"
    assert pool.fits([2], 3, {2: 2})


@pytest.mark.parametrize(
    ("owners", "message"),
    [(Counter(), "owners"), (Counter({1: 2}), "owners"), (Counter({1: 1, 2: 1}), "owners")],
)
def test_check_notices_wrong_counts(owners: Counter[int], message: str) -> None:
    pool = BlockPool(2)
    pool.allocate(1)
    pool.check(Counter({1: 1}))
    with pytest.raises(AssertionError, match=message):
        pool.check(owners)
