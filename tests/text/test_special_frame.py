"""The special tokens around texts and pairs, held against tokenizers' own post-processors."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from headrace.core.errors import BadCheckpoint
from headrace.text.special_frame import SpecialFrame

WORDS = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e"]
CLS, SEP = ("[CLS]", 1), ("[SEP]", 2)

PROCESSORS = {
    "none": None,
    "bert": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "byte level": processors.ByteLevel(),
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[CLS, SEP]
    ),
    "end only": processors.TemplateProcessing(single="$A [SEP]", pair="$A $B [SEP]", special_tokens=[SEP]),
}


def make_backend(processor: processors.PostProcessor | None) -> tokenizers.Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if processor is not None:
        backend.post_processor = processor
    return backend


@pytest.mark.parametrize("add_special_tokens", [True, False])
@pytest.mark.parametrize("name", list(PROCESSORS))
def test_frames_are_what_the_post_processor_does(name: str, add_special_tokens: bool) -> None:
    backend = make_backend(PROCESSORS[name])
    frame = SpecialFrame(backend, add_special_tokens=add_special_tokens)
    texts = ["", "a", "b c d e", "e e"]
    for first in texts:
        ids = backend.encode(first, add_special_tokens=False).ids
        expected = backend.encode(first, add_special_tokens=add_special_tokens)
        assert frame.around(ids) == expected.ids
        assert frame.single == len(expected.ids) - len(ids)
        for second in texts:
            more = backend.encode(second, add_special_tokens=False).ids
            pair = frame.around_pair(ids, more)
            expected = backend.encode(first, second, add_special_tokens=add_special_tokens)
            assert (pair.ids, pair.type_ids) == (expected.ids, expected.type_ids)
            assert frame.pair == len(expected.ids) - len(ids) - len(more)


def test_pairs_in_another_order_are_refused() -> None:
    reversed_pair = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $B [SEP] $A", special_tokens=[CLS, SEP]
    )
    with pytest.raises(BadCheckpoint, match="another order"):
        SpecialFrame(make_backend(reversed_pair), add_special_tokens=True)
