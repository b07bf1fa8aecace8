"""Upper bounds of a prompt's tokens, from the request alone: what budgets and limits reserve.

No tokenizer of a language model makes more tokens of a text than the text has UTF-8 bytes, and JSON
never writes a text shorter than its UTF-8. So a body's length bounds every text in it: messages,
tool schemas, token lists. What a model is given beyond that text is covered by constants: the words
of its chat template, the instructions it adds for tools, and the size of media, which has nothing
to do with the bytes of the file.
"""

import re
from typing import Any

import msgspec

CALL_TOKENS = 256  # default system prompts, dates and headers that chat templates add to a call
MESSAGE_TOKENS = 8  # what marks the beginning and the end of one message
TOOLS_TOKENS = 1024  # instructions that are added as soon as there is a tool or an output schema

# An image is billed by its size in pixels. The dearest known: 2,833 tokens and 5,667 for each of 8
# tiles (gpt-4o-mini); others stay below 17,000. Asked for in low detail it is the 2,833 alone.
IMAGE_TOKENS = 49_152
SMALL_IMAGE_TOKENS = 3_072
# The pages of a document may hold a thousand times more than its compressed bytes, and a reference
# says nothing at all; but it must fit the model's context.
FILE_TOKENS = 1_048_576

_FILES = frozenset({"file", "document", "input_file", "container_upload", "item_reference"})
_MEDIA = _FILES | {"image", "image_url", "input_image"}
_MARKS = (b'"image', b'"input_', b'"file"', b'"document"', b'"container_upload"', b'"item_ref')
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")  # a letter of "type" may be written so


def bound_chat(body: bytes, messages: int, *, is_instructed: bool) -> int:
    """Return more tokens than the prompt of a call with so many messages can have.

    ``is_instructed``: it has tools or an output schema.
    """
    bound = len(body) + CALL_TOKENS + MESSAGE_TOKENS * messages
    if is_instructed:
        bound += TOOLS_TOKENS
    if _may_have_media(body):
        bound += _count_media(msgspec.json.decode(body))
    return bound


def bound_texts(texts: "str | list[Any]") -> int:
    """Return more tokens than the prompts (or inputs) of a call without messages can have.

    They are a text, a list of texts, a list of tokens or a list of lists of tokens.
    """
    if isinstance(texts, str):
        return len(texts.encode()) + MESSAGE_TOKENS
    if texts and isinstance(texts[0], int):
        return len(texts) + MESSAGE_TOKENS
    return sum(
        (len(text.encode()) if isinstance(text, str) else len(text)) + MESSAGE_TOKENS
        for text in texts
    )


def _may_have_media(body: bytes) -> bool:
    """Whether a full look is due; most bodies have no list but that of the messages."""
    if body.count(b"[") == 1:
        return False
    if b"\\u00" in body and _ESCAPED_ASCII.search(body):
        return True
    return b'"type"' in body and any(mark in body for mark in _MARKS)


def _count_media(value: Any) -> int:  # noqa: ANN401 - any JSON
    total, waiting = 0, [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            media = _bound_part(value)
            total += media
            if not media:
                waiting.extend(value.values())
    return total


def _bound_part(part: dict[str, Any]) -> int:
    """Return the bound of a picture or a document, 0 for any other object."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _MEDIA:
        return 0
    if kind in _FILES:
        return FILE_TOKENS
    inner = part.get("image_url")
    detail = inner.get("detail") if isinstance(inner, dict) else part.get("detail")
    return SMALL_IMAGE_TOKENS if detail == "low" else IMAGE_TOKENS
