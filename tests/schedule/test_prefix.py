from __future__ import annotations

from headrace.schedule.prefix import block_hash, root_hash


def test_names_are_128_bits_and_repeatable() -> None:
    name = block_hash(root_hash(None), [1, 2, 3])
    assert len(name) == 16
    assert name == block_hash(root_hash(None), [1, 2, 3])


def test_everything_before_a_block_is_part_of_its_name() -> None:
    root = root_hash(None)
    chains = [
        block_hash(block_hash(root, first), second)
        for first, second in [([1, 2], [3, 4]), ([1, 3], [2, 4]), ([2, 1], [3, 4]), ([1, 2], [4, 3])]
    ]
    assert len(set(chains)) == 4
    assert block_hash(root, [1, 256]) != block_hash(root, [256, 1])


def test_salts_separate() -> None:
    roots = [root_hash(salt) for salt in (None, "", "a", "b", "salt:", "\ud800")]
    assert len(set(roots)) == len(roots)


def test_a_root_is_no_block() -> None:
    """A caller chooses the salt, and must not be able to name another caller's block with it."""
    parent = b"salt:" + b"x" * 11
    assert root_hash("x" * 11 + "\0" * 8) != block_hash(parent, [0])
