"""``POST /v1/feedback``: what somebody thinks of an answer that they were given."""

import re
from typing import NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.ids import decode_uuid
from pilotage.gateway.wire.door import read_request

MAX_FEEDBACK_BYTES = 32 << 10
MAX_COMMENT = 4_000  # letters
BEST = 1_000_000  # a score of 1 in a frame
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_ENCODE = msgspec.json.Encoder().encode


class FeedbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body: a call's id (``x-request-id`` of its reply), and a score from 0 to 1 or a label.

    A comment may come with them.
    """

    request_id: str
    score: float | None = None
    label: str = ""
    comment: str = ""


class Said(NamedTuple):
    """What was said of a call; ``score`` in millionths, -1 for none."""

    call_id: str
    score: int
    label: str
    comment: str


_REQUEST = msgspec.json.Decoder(FeedbackRequest)


def decode_feedback(body: bytes) -> Said:
    """Read the body; raise ``invalid_json`` or ``invalid_request``, naming the field."""
    request = read_request(_REQUEST, body)
    if not _is_call_id(request.request_id):
        raise PilotageError(
            "invalid_request",
            f"{request.request_id[:40]!r} is not the id of a call.",
            hint="Send the x-request-id of the reply that the feedback is about.",
            param="request_id",
        )
    if request.score is None and not request.label:
        raise PilotageError(
            "invalid_request",
            "The feedback says nothing.",
            hint="Send a score from 0 (worst) to 1 (best), a label, or both.",
            param="score",
        )
    if request.score is not None and not 0 <= request.score <= 1:
        raise PilotageError(
            "invalid_request",
            f"{request.score:g} is not a score.",
            hint="Send a number from 0 (worst) to 1 (best).",
            param="score",
        )
    if request.label and not _LABEL.fullmatch(request.label):
        raise PilotageError(
            "invalid_request",
            f"{request.label[:40]!r} is not a label.",
            hint="Send 1 to 64 lower-case letters, digits, dots, dashes and underscores.",
            param="label",
        )
    if len(request.comment) > MAX_COMMENT:
        raise PilotageError(
            "invalid_request",
            f"The comment has {len(request.comment):,} letters.",
            hint=f"Send {MAX_COMMENT:,} letters at most.",
            param="comment",
        )
    score = -1 if request.score is None else round(request.score * BEST)
    return Said(request.request_id, score, request.label, request.comment)


def encode_feedback(feedback_id: str, said: Said, *, is_kept: bool) -> bytes:
    """Return the body of the reply, which says whether a comment is kept."""
    return _ENCODE(
        {
            "object": "feedback",
            "id": feedback_id,
            "request_id": said.call_id,
            "score": None if said.score < 0 else said.score / BEST,
            "label": said.label or None,
            "comment": ("kept" if is_kept else "dropped") if said.comment else None,
        }
    )


def _is_call_id(text: str) -> bool:
    try:
        decode_uuid(text)
    except ValueError:
        return False
    return text.startswith("call_")
