"""The parts of a message's content: texts are read, media are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.core.errors import BadRequest, Unsupported

Part = dict[str, Any]
"""`{"type": "text", "text": …}` with whatever other fields the client sent."""

_TEXT_FIELDS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Part type -> field that holds its text."""

_MEDIA = (
    "image_url",
    "input_image",
    "input_audio",
    "audio_url",
    "video_url",
    "image_embeds",
    "audio_embeds",
    "video_embeds",
)


def read_parts(content: object, place: str, model_name: str) -> list[Part]:
    """Content, of any shape that clients send, as text parts; parts whose text is null are left out.

    Raises `BadRequest`, naming the part, for media and for what is not understood.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise BadRequest(f"{place} must be a text or a list of parts.", parameter="messages")
    read = (_read_part(part, f"{place}[{index}]", model_name) for index, part in enumerate(content))
    return [part for part in read if part is not None]


def text_of(parts: Sequence[Part]) -> str:
    """The texts of the parts, a line each."""
    return "\n".join(part["text"] for part in parts)


def _read_part(part: object, place: str, model_name: str) -> Part | None:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise BadRequest(f"{place} must be a text or an object with a type.", parameter="messages")
    kind = _kind(part, place)
    if kind in _MEDIA:
        raise BadRequest(f"{model_name} is not a multimodal model: {place} is of type {kind!r}.", parameter="messages")
    if kind == "prompt_embeds":
        raise Unsupported(f"{place}: parts of type 'prompt_embeds' are not supported.", parameter="messages")
    field = _TEXT_FIELDS.get(kind)
    if field is None:
        supported = ", ".join(_TEXT_FIELDS)
        raise BadRequest(f"{place}: unknown type {kind!r}. Supported are: {supported}.", parameter="messages")
    text = part.get(field)
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadRequest(f"{place}.{field} must be a text.", parameter="messages")
    others = {key: value for key, value in part.items() if key not in ("type", field)}
    return {**others, "type": "text", "text": text}


def _kind(part: Mapping[str, Any], place: str) -> str:
    kind = part.get("type")
    if kind is None:
        kind = next((known for known in (*_TEXT_FIELDS, *_MEDIA) if known in part), None)
    if not isinstance(kind, str):
        raise BadRequest(f"{place} has no type.", parameter="messages")
    return kind
