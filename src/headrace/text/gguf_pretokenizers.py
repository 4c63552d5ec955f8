"""How a byte-level vocabulary splits text before merging, by the name a GGUF file gives (`tokenizer.ggml.pre`).

The expressions are those of the models' published `tokenizer.json`; the names are llama.cpp's (`llama-vocab.cpp`,
`load`), which also says which of them begin a prompt with BOS and take a whole word without merging when the file is
silent about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Punctuation, Sequence, Split

from headrace.core.errors import BadCheckpoint

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAMEL_HEAD = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_CAMEL_CAPS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_TEKKEN = rf"{_CAMEL_HEAD}|{_CAMEL_CAPS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_GPT4O = (
    rf"{_CAMEL_HEAD}{_CONTRACTIONS}?|{_CAMEL_CAPS}{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    rf"|{_SPACES}"
)
_CJK = "[一-龥ࠀ-一가-\ud7ff]+"


def _isolate(pattern: str) -> PreTokenizer:
    return Split(Regex(pattern), behavior="isolated")


def _in_order(*steps: PreTokenizer | str) -> PreTokenizer:
    """Cut by each step in turn, then spell the pieces in the byte alphabet."""
    cuts = [_isolate(step) if isinstance(step, str) else step for step in steps]
    return Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> PreTokenizer:
    return ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> PreTokenizer:
    """GPT-2's expression after every digit has been cut off on its own.

    The published `tokenizer.json` of SmolLM2 (revision 93efa2f) is `[Digits, ByteLevel]`, and llama.cpp cuts so too
    (LLAMA_VOCAB_PRE_TYPE_SMOLLM: the digit first, then GPT-2's expression). transformers 5.23 forgets the first step
    when it reads a GGUF file. It shows in white space before a digit (three tabs and "1" are two tokens here, and
    three there) and in digits of other scripts.
    """
    return Sequence([Digits(individual_digits=True), _gpt2()])


def _falcon() -> PreTokenizer:
    return Sequence([Punctuation("contiguous"), _gpt2(), Digits(individual_digits=False), _isolate("[0-9][0-9][0-9]")])


def _deepseek_llm() -> PreTokenizer:
    # The published expression lists the cased letters one range after the other; these three categories are they.
    letters = r"\s?[\p{Lu}\p{Ll}\p{Lt}]+"
    marks = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
    return _in_order(r"[\r\n]", letters, marks, r"\s+$", _CJK, Digits(individual_digits=True))


def _deepseek_coder() -> PreTokenizer:
    return _in_order(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, Digits(individual_digits=True))


def _deepseek3() -> PreTokenizer:
    return _in_order(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3_WORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """`add_bos` is what to do where the file does not say; `ignore_merges`: a word that is a piece stays whole."""

    pre_tokenizer: PreTokenizer
    add_bos: bool = False
    ignore_merges: bool = False


def splitting(name: str | None) -> Splitting:
    """The splitting called `name`; GPT-2's if the file names none or `default`, as transformers has it.

    (llama.cpp's own `default` is Falcon's splitting, with a warning that quality will suffer.)
    Raises `BadCheckpoint`, naming the name, if it is not known: a guess would spoil the model's input silently.
    """
    match name:
        case None | "default" | "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling":
            return Splitting(pre_tokenizer=_gpt2())
        case "exaone4" | "gigachat" | "a.x-4.0" | "mellum":
            return Splitting(pre_tokenizer=_gpt2())
        case "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b":
            return Splitting(pre_tokenizer=_single_digits())
        case "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2":
            # Published with "ignore_merges": true; transformers forgets it when it reads a GGUF file.
            return Splitting(pre_tokenizer=_in_order(_LLAMA3), add_bos=True, ignore_merges=True)
        case "tekken":
            return Splitting(pre_tokenizer=_in_order(_TEKKEN), add_bos=True, ignore_merges=True)
        case "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4":
            return Splitting(pre_tokenizer=_in_order(_LLAMA3))
        case "qwen2" | "deepseek-r1-qwen" | "kormo" | "megrez" | "stablelm2" | "hunyuan" | "grok-2":
            return Splitting(pre_tokenizer=_in_order(_QWEN2))
        case "qwen35":
            return Splitting(pre_tokenizer=_in_order(_QWEN35))
        case "gpt-4o" | "llama4" | "kanana2" | "minimax-m2":
            return Splitting(pre_tokenizer=_in_order(_GPT4O))
        case "falcon":
            return Splitting(pre_tokenizer=_falcon())
        case "deepseek-llm":
            return Splitting(pre_tokenizer=_deepseek_llm())
        case "deepseek-coder":
            return Splitting(pre_tokenizer=_deepseek_coder())
        case "deepseek-v3" | "hunyuan-dense":
            return Splitting(pre_tokenizer=_deepseek3())
    raise BadCheckpoint(
        f"tokenizer.ggml.pre is {name!r}, a way of splitting text that is not known here; "
        "give a folder with the model's tokenizer.json by --tokenizer."
    )
