"""What the registry decides of versions: how they are written, said to be, tagged and found."""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.semver import SemVer, parse_semver
from pilotage.registry.types import EvidenceDraft, ModelSource

MOST_TAGS = 64
MOST_METADATA_BYTES = 16_384
MOST_WORDS = 100  # of a version that can be searched for
LONGEST_WORD = 40  # letters of a word that are looked at
MOST_DIGITS = 60  # of a number in evidence
_FARTHEST = 300  # powers of ten: what a double can hold as well
_TAG = re.compile(r"[a-z0-9](?:[a-z0-9._:/=-]{0,61}[a-z0-9])?")
_KIND = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*")
_WORD = re.compile(r"[^\W_]+")
_LONGEST_TEXT = 1000
_OWN_KINDS = {  # of evidence that is written here alone, and what makes it so
    "scan.format": "It is what reading the files found: push others, as safetensors or GGUF.",
    "replay": "It is what replaying kept calls found: pilotage replay start ENDPOINT CANDIDATE",
    "card": "It follows from the card: pilotage models card NAME@VERSION --edit FILE.md",
}


class VersionRef(NamedTuple):
    """What ``NAME@VERSION`` or ``NAME`` points to."""

    model: str
    version: SemVer | None


def parse_ref(text: str) -> VersionRef:
    """Read ``NAME@VERSION`` or ``NAME``; raise ``invalid_request`` for a bad version."""
    model, at, version = text.partition("@")
    return VersionRef(model, check_version(version) if at else None)


def check_version(text: str) -> SemVer:
    """Return a semantic version; raise ``invalid_request`` that says what one looks like."""
    try:
        return parse_semver(text)
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request",
            f"version: {wrong}.",
            hint=(
                "Write MAJOR.MINOR.PATCH: major for another input or output, minor for a tuned or "
                "re-trained model, patch for another prompt or configuration; 1.3.0-rc.1 comes "
                "before 1.3.0."
            ),
            param="version",
        ) from None


def check_source(text: str) -> ModelSource:
    """Return where a version comes from; raise ``invalid_request`` that lists what may be."""
    try:
        return ModelSource(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{text[:80]!r} is no source of a version.",
            hint=f"Use one of: {', '.join(ModelSource)}.",
            param="source",
        ) from None


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return tags in order and once each; raise ``invalid_request`` for what is none."""
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise PilotageError(
                "invalid_request",
                f"{tag[:80]!r} is no tag.",
                hint="Use 1 to 63 lower-case letters, digits, '.', '_', ':', '/', '=' and '-'.",
                param="tags",
            )
    unique = tuple(sorted(set(tags)))
    if len(unique) > MOST_TAGS:
        raise PilotageError(
            "invalid_request", f"A version may have {MOST_TAGS} tags at most.", param="tags"
        )
    return unique


def check_metadata(metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Return metadata that is JSON of a bearable size; raise ``invalid_request``."""
    try:
        size = len(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError):
        size = MOST_METADATA_BYTES + 1
    if size > MOST_METADATA_BYTES:
        raise PilotageError(
            "invalid_request",
            f"custom_metadata must be JSON of {MOST_METADATA_BYTES} bytes at most.",
            hint="Keep what is large in a file, and its hash or address here.",
            param="custom_metadata",
        )
    return metadata


def check_evidence(draft: EvidenceDraft) -> None:
    """Raise ``invalid_request`` for evidence that says nothing, or what cannot be."""
    if not _KIND.fullmatch(draft.kind) or len(draft.kind) > MOST_TAGS:
        raise _bad_evidence(
            "kind",
            f"{draft.kind[:80]!r} is no kind of evidence",
            "Write words with dots between them, for example metric.performance.",
        )
    for name in ("subject", "unit", "hash", "run_id", "dataset_version_id", "tool", "note"):
        if len(getattr(draft, name)) > _LONGEST_TEXT:
            raise _bad_evidence(name, f"it is longer than {_LONGEST_TEXT} letters")
    numbers = (draft.low, draft.value, draft.high)
    given = [number for number in numbers if number is not None]
    if not all(map(_is_plain, given)):
        raise _bad_evidence("value", f"a number must be finite, of {MOST_DIGITS} digits at most")
    if given != sorted(given):
        raise _bad_evidence("low", "the interval must be around the value: low <= value <= high")
    if draft.n is not None and draft.n < 1:
        raise _bad_evidence("n", "n counts samples: 1 at least")
    if draft.kind.startswith("metric.") and (draft.value is None or not draft.subject):
        raise _bad_evidence(
            "value",
            "a metric needs a name and a value",
            'For example {"kind": "metric.performance", "subject": "accuracy", "value": "0.92"}.',
        )


def check_reported(draft: EvidenceDraft) -> None:
    """Raise ``invalid_request`` for evidence that nobody may report, as it is written here."""
    if draft.kind in _OWN_KINDS:
        raise _bad_evidence(
            "kind", f"{draft.kind} is written by Pilotage itself", _OWN_KINDS[draft.kind]
        )


def list_words(*texts: str) -> list[str]:
    """Return the words that a version is found by, in order and once each."""
    return split_words(" ".join(texts))[:MOST_WORDS]


def split_words(text: str) -> list[str]:
    """Return the words of a text as they are compared: letters and digits, without case."""
    return sorted({word[:LONGEST_WORD] for word in _WORD.findall(text.casefold())})


def _is_plain(number: Decimal) -> bool:
    if not number.is_finite():
        return False
    return len(number.as_tuple().digits) <= MOST_DIGITS and abs(number.adjusted()) <= _FARTHEST


def _bad_evidence(name: str, detail: str, hint: str = "") -> PilotageError:
    return PilotageError("invalid_request", f"{name}: {detail}.", hint=hint, param=name)
