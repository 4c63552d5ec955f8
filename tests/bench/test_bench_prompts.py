"""What is sent: random prompts of exact length, shared prefixes, files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.bench.errors import BenchError
from headrace.bench.files import file_prompts
from headrace.bench.prompts import Lengths, Prompt, random_prompts, shared_prefix_prompts
from headrace.bench.words import Words, all_words, one_token_words
from headrace.hub import open_checkpoint
from headrace.text import Tokenizer


@pytest.fixture(scope="module")
def tokenizers(smollm2_path: Path, gemma3_path: Path) -> list[Tokenizer]:
    """One that puts nothing around a text, and one that begins it with a token."""
    return [Tokenizer.load(open_checkpoint(str(path))) for path in (smollm2_path, gemma3_path)]


class Spelling:
    """A tokenizer of characters: no English word is one token but "a"."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(char) for char in text.replace(" ", "")]


def take(prompts: Iterator[Prompt], count: int) -> list[Prompt]:
    return list(itertools.islice(prompts, count))


def test_texts_and_ids_have_the_length_that_was_asked_for(tokenizers: list[Tokenizer]):
    lengths = Lengths(prompt_tokens=100, output_tokens=10)
    for tokenizer in tokenizers:
        words = one_token_words(tokenizer)
        assert len(words.words) > 100
        for prompt in take(random_prompts(words, lengths, as_ids=False, seed=0), 5):
            assert prompt.tokens == len(tokenizer.encode(prompt.content)) == 100
        for prompt in take(random_prompts(words, lengths, as_ids=True, seed=0), 5):
            assert prompt.tokens == len(prompt.content) == 100
            assert not tokenizer.special_ids & set(prompt.content)


def test_prompts_are_the_same_for_a_seed_and_share_nothing():
    lengths = Lengths(prompt_tokens=20, output_tokens=10)
    drawn = [prompt.content for prompt in take(random_prompts(all_words(), lengths, as_ids=False, seed=3), 50)]
    again = [prompt.content for prompt in take(random_prompts(all_words(), lengths, as_ids=False, seed=3), 50)]
    other = [prompt.content for prompt in take(random_prompts(all_words(), lengths, as_ids=False, seed=4), 50)]
    assert drawn == again
    assert not set(drawn) & set(other)
    assert len(set(drawn)) == 50


def test_lengths_are_spread_around_their_mean():
    lengths = Lengths(prompt_tokens=100, output_tokens=10, spread=0.5)
    words = Words(("a", "b"), (1, 2), 0)
    prompts = take(random_prompts(words, lengths, as_ids=True, seed=0), 2000)
    assert {prompt.tokens for prompt in prompts} == set(range(50, 151))
    assert {prompt.output_tokens for prompt in prompts} == set(range(5, 16))
    assert all(prompt.tokens == len(prompt.content) for prompt in prompts)


def test_shared_prefixes_are_taken_in_turn(tokenizers: list[Tokenizer]):
    lengths = Lengths(prompt_tokens=10, output_tokens=1)
    for tokenizer, as_ids in itertools.product(tokenizers, (True, False)):
        words = one_token_words(tokenizer)
        prompts = take(shared_prefix_prompts(words, lengths, prefixes=3, prefix_tokens=40, as_ids=as_ids, seed=0), 9)
        ids = [prompt.content if as_ids else tokenizer.encode(prompt.content) for prompt in prompts]
        assert [prompt.tokens for prompt in prompts] == [len(one) for one in ids] == [50] * 9
        assert len({tuple(one[:40]) for one in ids}) == 3
        assert all(ids[number][:40] == ids[number % 3][:40] for number in range(9))
        assert len({tuple(one[40:]) for one in ids}) == 9


def test_a_vocabulary_without_words():
    with pytest.raises(BenchError, match="Too few English words"):
        one_token_words(Spelling())


def test_without_a_tokenizer_lengths_are_unknown_and_ids_refused():
    lengths = Lengths(prompt_tokens=10, output_tokens=1)
    [prompt] = take(random_prompts(all_words(), lengths, as_ids=False, seed=0), 1)
    assert prompt.tokens is None
    assert len(prompt.content.split()) == 10
    with pytest.raises(BenchError, match="need a tokenizer"):
        next(random_prompts(all_words(), lengths, as_ids=True, seed=0))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": 0, "output_tokens": 1},
        {"prompt_tokens": 1, "output_tokens": 0},
        {"prompt_tokens": 1, "output_tokens": 1, "spread": 1.0},
    ],
)
def test_lengths_that_make_no_sense(fields: dict[str, int]):
    with pytest.raises(BenchError):
        Lengths(**fields)


RECORDS = [
    {"prompt": "one two"},
    {"prompt": [5, 6, 7], "output_tokens": 9},
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "of the and"}]},
    {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "in a batch", "max_tokens": 2}},
    "only a text",
]


def test_files_of_json(tmp_path: Path, tokenizers: list[Tokenizer]):
    lines, one_list = tmp_path / "a.jsonl", tmp_path / "b.json"
    lines.write_text("\n".join(map(json.dumps, RECORDS)) + "\n\n")
    one_list.write_text(json.dumps(RECORDS, indent=2))
    for path in (lines, one_list):
        prompts = take(file_prompts(path, output_tokens=None, default=64, tokenizer=tokenizers[0]), 7)
        assert [prompt.output_tokens for prompt in prompts] == [64, 9, 4, 3, 2, 64, 64]
        assert prompts[1] == Prompt(content=[5, 6, 7], tokens=3, output_tokens=9)
        assert prompts[2].content == ({"role": "user", "content": "Hi"},)
        assert [prompts[place].content for place in (3, 4, 5)] == ["Why?", "in a batch", "only a text"]
        assert prompts[6] == prompts[0], "a file begins again at its end"


def test_lengths_of_answers_can_be_the_same_for_all(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS)))
    prompts = take(file_prompts(path, output_tokens=5, default=64, tokenizer=None), 6)
    assert {prompt.output_tokens for prompt in prompts} == {5}


def test_files_of_lines(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_text("[not JSON] at all\n\n{nor this\n")
    prompts = take(file_prompts(path, output_tokens=None, default=8, tokenizer=None), 3)
    assert [prompt.content for prompt in prompts] == ["[not JSON] at all", "{nor this", "[not JSON] at all"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"prompt": "fine"}\n{"prompt": ', r"line 2"),
        ("a.jsonl", '{"prompt": "fine"}\n{"question": "Why?"}', r"line 2: there is no prompt"),
        ("a.jsonl", '{"prompt": [1, "two"]}', r"line 1: there is no prompt"),
        ("a.jsonl", '{"prompt": "x", "max_tokens": 0}', r"line 1: its output_tokens"),
        ("a.json", '[{"prompt": "fine"}, {}]', r"record 2: there is no prompt"),
        ("a.txt", "\n\n", r"no prompt in it"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, name: str, text: str, message: str):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BenchError, match=message):
        file_prompts(path, output_tokens=None, default=8, tokenizer=None)


def test_files_that_are_not_there(tmp_path: Path):
    with pytest.raises(BenchError, match="cannot be read"):
        file_prompts(tmp_path / "none.txt", output_tokens=None, default=8, tokenizer=None)
