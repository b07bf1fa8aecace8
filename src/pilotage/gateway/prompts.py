"""Prompts that calls name: found in the Snapshot, filled in, and said on the client's wire.

It happens before anything else looks at a request, so that size, bounds, limits, guards and records
are those of the whole text. A request that names no prompt is passed on as the bytes it came in.
"""

from typing import Any, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.prompt_table import PromptTable
from pilotage.core.prompts import (
    ReadyPrompt,
    compile_prompt,
    decode_content,
    parse_prompt_ref,
)
from pilotage.gateway.wire.door import Wire, WireRequest, is_said, read_request

MOST_READY = 256  # versions that one process keeps parsed
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NOTHING = msgspec.Raw(b"null")


class Prompted(NamedTuple):
    """A request and its body, and the version of a prompt that is in them ("" for none)."""

    request: WireRequest
    body: bytes
    ref: str


class Naming(msgspec.Struct, forbid_unknown_fields=True):
    """``prompt`` of a request; ``version`` may stand apart from ``id``."""

    id: str
    version: str | None = None
    variables: dict[str, Any] | None = None


class PromptBook:
    """The prompts of a Snapshot; those that calls ask for stay parsed, up to a number."""

    def __init__(self, table: PromptTable) -> None:
        self._table = table
        self._ready: dict[tuple[str, str], ReadyPrompt] = {}

    def get(self, project_id: str, text: str) -> ReadyPrompt:
        """Return what ``NAME@VERSION`` or ``NAME@LABEL`` leads to; raise ``prompt_not_found``."""
        ready = self._ready.get((project_id, text))
        if ready is None:
            ready = self._read(project_id, text)
            if len(self._ready) >= MOST_READY:
                del self._ready[next(iter(self._ready))]
            self._ready[project_id, text] = ready
        return ready

    def _read(self, project_id: str, text: str) -> ReadyPrompt:
        name, release = parse_prompt_ref(text)
        found = self._table.find(project_id, name, release)
        if found is None:
            raise PilotageError(
                "prompt_not_found",
                f"The prompt {text[:200]!r} does not exist.",
                hint=f"List its versions and labels: pilotage prompts show {name[:63]}",
                param="prompt",
            )
        return compile_prompt(found.ref, decode_content(found.content))


def read_prompted(
    book: PromptBook, project_id: str, wire: Wire, body: bytes, most_bytes: int
) -> Prompted:
    """Read a request; if it names a prompt, as it is with the prompt's messages in it.

    Raises what its wire does, ``prompt_not_found``, ``invalid_request``, ``request_too_large``
    (beyond ``most_bytes``) or ``unsupported``.
    """
    try:
        request = wire.decode_request(body)
    except PilotageError:  # what it lacks may be what the prompt says
        expanded = _expand(book, project_id, wire, body, most_bytes)
        if expanded is None:
            raise
    else:
        if not request.names_prompt:
            return Prompted(request, body, "")
        expanded = _expand(book, project_id, wire, body, most_bytes)
        if expanded is None:
            return Prompted(request, body, "")
    whole, ref = expanded
    return Prompted(wire.decode_request(whole), whole, ref)


def _expand(
    book: PromptBook, project_id: str, wire: Wire, body: bytes, most_bytes: int
) -> tuple[bytes, str] | None:
    """Return a request with its prompt filled in and the version's name, None if it names none."""
    if wire.expand is None:
        return None
    fields = read_request(_FIELDS, body)
    named = fields.pop("prompt", _NOTHING)
    if not is_said(named):
        return None
    naming = _read_naming(named, fields.pop("prompt_variables", _NOTHING))
    ready = book.get(project_id, naming.id)
    whole = wire.expand(fields, ready, ready.fill(naming.variables or {}, most_bytes))
    if len(whole) > most_bytes:
        raise PilotageError(
            "request_too_large",
            f"With the prompt {ready.ref}, the body has more than {most_bytes} bytes.",
            param="prompt",
        )
    return whole, ready.ref


def _read_naming(named: msgspec.Raw, variables: msgspec.Raw) -> Naming:
    try:
        said = msgspec.json.decode(named, type=str | Naming)
        apart = msgspec.json.decode(variables, type=dict[str, Any] | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise PilotageError(
            "invalid_request",
            f"'prompt': {str(wrong).replace('`', chr(39))}.",
            hint='Write "prompt": {"id": "NAME@VERSION", "variables": {...}}.',
            param="prompt",
        ) from None
    naming = Naming(said) if isinstance(said, str) else said
    if apart is not None and naming.variables is not None:
        raise PilotageError(
            "invalid_request",
            "'prompt_variables' and 'prompt.variables' are both given.",
            param="prompt_variables",
        )
    if naming.version is not None:
        naming.id = f"{naming.id}@{naming.version}"
    naming.variables = naming.variables or apart
    return naming
