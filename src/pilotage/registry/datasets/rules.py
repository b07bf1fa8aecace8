"""What datasets are decided by: numbers, what is said of them, leaks, deletion, comparison."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.semver import SemVer
from pilotage.registry.artifacts.rules import check_tree
from pilotage.registry.artifacts.types import TreeEntry
from pilotage.registry.datasets.types import (
    Checked,
    DataFile,
    DataFormat,
    DatasetDiff,
    DatasetDraft,
    DatasetVersion,
    Numbering,
    PiiHandling,
    Split,
    SplitCount,
)
from pilotage.registry.rules import check_version
from pilotage.registry.types import EvidenceDraft

MANIFEST_VERSION = 1
MOST_TEXT = 1000
MOST_FINDINGS = 100
_DATE = re.compile(r"(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?:\.([1-9]\d{0,5}))?", re.ASCII)
_FINDING = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
Choice = TypeVar("Choice", bound=StrEnum)


def make_key(numbering: str, text: str) -> tuple[str, str]:
    """Return a version as it is written and as it is ordered; raise ``invalid_request``."""
    if numbering == Numbering.SEMVER:
        number: SemVer = check_version(text)
        return str(number), number.text_key()
    found = _DATE.fullmatch(text)
    if found is None:
        raise PilotageError(
            "invalid_request",
            f"version: {text[:80]!r} is no date.",
            hint="Write YYYY-MM-DD, or YYYY-MM-DD.2 for the second of a day.",
            param="version",
        )
    year, month, day, count = found.groups()
    return text, f"{year}-{month}-{day}.{int(count or 1):06d}"


def is_number(numbering: str, text: str) -> bool:
    """Say whether a text is read as the number of a version."""
    try:
        make_key(numbering, text)
    except PilotageError:
        return False
    return True


def check_choice(kind: type[Choice], text: str, param: str) -> Choice:
    """Return a member of an enum; raise ``invalid_request`` that lists them."""
    try:
        return kind(text)
    except ValueError:
        raise PilotageError(
            "invalid_request",
            f"{param}: {text[:80]!r} is none.",
            hint=f"Use one of: {', '.join(kind)}.",
            param=param,
        ) from None


def check_draft(draft: DatasetDraft) -> tuple[tuple[str, str, str], ...]:
    """Return (split, path, SHA-256) of a draft's files, in order; raise ``invalid_request``."""
    check_choice(DataFormat, draft.format, "format")
    handling = check_choice(PiiHandling, draft.pii, "pii")
    for name in ("license", "source", "description", "pii_scanned_by", "leak_reason"):
        if len(getattr(draft, name)) > MOST_TEXT:
            raise _bad(name, f"it has more than {MOST_TEXT} letters")
    _check_findings(handling, draft)
    flat = {
        f"{check_choice(Split, split, 'files')}/{path}": sha256
        for split, files in draft.files.items()
        for path, sha256 in files.items()
    }
    tree = check_tree([TreeEntry(path, sha256, 0) for path, sha256 in flat.items()])
    return tuple((*_cut(entry.path), entry.sha256) for entry in tree)


def write_manifest(format: str, files: Sequence[DataFile]) -> bytes:  # noqa: A002 - its name
    """Return the canonical bytes of what a version holds: their SHA-256 is its identity.

    JSON without spaces, its keys in order, files in order of split and path.
    """
    listed = [file._asdict() for file in sorted(files)]
    content = {"files": listed, "format": format, "version": MANIFEST_VERSION}
    return msgspec.json.encode(content, order="sorted")


def hash_manifest(manifest: bytes) -> str:
    """Return the identity of a version."""
    return hashlib.sha256(manifest).hexdigest()


def count_splits(files: Sequence[DataFile]) -> tuple[SplitCount, ...]:
    """Return what each split comes to, in the order train, validation, test."""
    counts = []
    for split in Split:
        of_split = [file for file in files if file.split == split]
        if of_split:
            records = sum(file.records for file in of_split)
            size = sum(file.size for file in of_split)
            counts.append(SplitCount(split, len(of_split), records, size))
    return tuple(counts)


def judge_leaks(checked: Checked, reason: str) -> None:
    """Raise ``invalid_dataset`` for records that are in two splits, unless somebody said why."""
    if checked.leaks and not reason.strip():
        told = ", ".join(f"{count} in {pair}" for pair, count in sorted(checked.leaks.items()))
        raise PilotageError(
            "invalid_dataset",
            f"The same records are in two splits: {told}.",
            hint=(
                "A model tested on what it was trained on looks better than it is. Take them out "
                "of one, or say why they may stay: leak_reason, or --allow-leaks WHY"
            ),
            param="files",
        )


def list_obstacles(
    version: DatasetVersion, now_us: int, references: Sequence[str]
) -> Sequence[str]:
    """Return why a version may not be deleted now."""
    why = []
    if version.hold_reason:
        why.append(f"it is held: {version.hold_reason}")
    if version.keep_until_us is not None and version.keep_until_us > now_us:
        why.append("the time it is kept for is not over")
    why += [f"{reference} refers to it" for reference in references]
    return why


def compare(
    before: DatasetVersion,
    after: DatasetVersion,
    files_before: Sequence[DataFile],
    files_after: Sequence[DataFile],
) -> DatasetDiff:
    """Return what is different between two versions."""
    old = {f"{file.split}/{file.path}": file.sha256 for file in files_before}
    new = {f"{file.split}/{file.path}": file.sha256 for file in files_after}
    return DatasetDiff(
        added=sorted(new.keys() - old.keys()),
        removed=sorted(old.keys() - new.keys()),
        changed=sorted(path for path in old.keys() & new.keys() if old[path] != new[path]),
        records=_pair(
            {count.name: count.records for count in before.splits},
            {count.name: count.records for count in after.splits},
        ),
        fields={
            name: (sorted(before.schema.get(name, ())), sorted(after.schema.get(name, ())))
            for name in sorted(before.schema.keys() | after.schema.keys())
            if set(before.schema.get(name, ())) != set(after.schema.get(name, ()))
        },
    )


def draft_evidence(version: DatasetVersion) -> list[EvidenceDraft]:
    """Return what a version says to the gates of a model that was trained on it."""
    scanned = f"scanned by {version.pii_scanned_by}" if version.pii_scanned_by else "not scanned"
    found = sum(version.pii_findings.values())
    is_clean = {
        PiiHandling.NONE: found == 0 and bool(version.pii_scanned_by),
        PiiHandling.MASKED: True,
        PiiHandling.TOKENISED: True,
        PiiHandling.CONTAINS: False,
        PiiHandling.UNKNOWN: None,
    }[PiiHandling(version.pii)]
    leaks = None if version.leaks is None else not version.leaks
    return [
        EvidenceDraft(
            kind="data.pii",
            subject=version.ref,
            passed=is_clean,
            note=f"{version.pii}, {scanned}, {found} findings",
            hash=version.manifest_sha256,
            dataset_version_id=version.id,
        ),
        EvidenceDraft(
            kind="data.leakage",
            subject=version.ref,
            passed=leaks,
            note="not compared" if version.leaks is None else f"{sum(version.leaks.values())}",
            hash=version.manifest_sha256,
            dataset_version_id=version.id,
        ),
    ]


def _check_findings(handling: PiiHandling, draft: DatasetDraft) -> None:
    findings = draft.pii_findings
    if len(findings) > MOST_FINDINGS or not all(map(_FINDING.fullmatch, findings)):
        raise _bad("pii_findings", f"give at most {MOST_FINDINGS} counts by kind, such as email")
    if any(count < 0 for count in findings.values()):
        raise _bad("pii_findings", "a count is 0 or more")
    if handling == PiiHandling.NONE and any(findings.values()):
        raise _bad("pii", "there are findings: it is masked, tokenised or contains them")


def _cut(path: str) -> tuple[str, str]:
    split, _, rest = path.partition("/")
    return split, rest


def _pair(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    names = [split for split in Split if split in before or split in after]
    return {name: (before.get(name, 0), after.get(name, 0)) for name in names}


def _bad(name: str, detail: str) -> PilotageError:
    return PilotageError("invalid_request", f"{name}: {detail}.", param=name)
