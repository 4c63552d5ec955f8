"""Between text and token ids: tokenizers, incremental decoding, stop strings, chat templates. No torch."""

from headrace.text.chat_template import ChatTemplate
from headrace.text.incremental import IncrementalDecoder
from headrace.text.stop import StopMatcher
from headrace.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "IncrementalDecoder", "StopMatcher", "Tokenizer"]
