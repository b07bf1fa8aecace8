"""What artifacts are decided by: which paths a tree may have, its hash, what archives may do."""

import hashlib
import re
import stat
import unicodedata
from collections.abc import Sequence

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.registry.artifacts.types import (
    Inspection,
    Member,
    Pickle,
    TreeEntry,
    UnpackLimits,
)
from pilotage.registry.types import EvidenceDraft

MOST_FILES = 10_000
LONGEST_PATH = 512  # bytes
LONGEST_PART = 255
DEEPEST = 16
SMALL_FILE = 1 << 20  # a small file may be packed as tightly as it likes
KNOWN_METHODS = {0, 8}  # stored and deflated: the others pack without a bound
MANIFEST_VERSION = 1
TOOL = "pilotage inspection 1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:")
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_HINT = "Give relative paths with '/' between folders, as they are below the folder of the model."


def check_sha256(text: str, param: str = "sha256") -> str:
    """Return a SHA-256 in lower-case hex; raise ``invalid_request``."""
    if not _SHA256.fullmatch(text):
        raise PilotageError(
            "invalid_request", f"{text[:80]!r} is not a SHA-256 in lower-case hex.", param=param
        )
    return text


def check_path(text: str) -> str:
    """Return a path of a tree in Unicode's normal form C; raise ``invalid_request``.

    It stays below its folder wherever it is unpacked, on any system.
    """
    path = unicodedata.normalize("NFC", text)
    parts = path.split("/")
    wrong = None
    if not path.isprintable():  # before anything else: NUL, line ends, letters that turn the line
        wrong = "has a letter that cannot be shown"
    elif not path or path.startswith("/") or _DRIVE.match(path):
        wrong = "is not relative"
    elif "\\" in path:
        wrong = "has a backslash"
    elif not all(parts) or {".", ".."} & set(parts):
        wrong = "has a part that is empty, '.' or '..'"
    elif any(part != part.strip(" ").rstrip(".") for part in parts):
        wrong = "has a part that begins or ends with a space, or ends with a dot"
    elif len(path.encode()) > LONGEST_PATH or len(parts) > DEEPEST:
        wrong = f"is longer than {LONGEST_PATH} bytes or deeper than {DEEPEST} folders"
    elif any(len(part.encode()) > LONGEST_PART for part in parts):
        wrong = f"has a part of more than {LONGEST_PART} bytes"
    if wrong is not None:
        raise _bad_path(f"{_show(text)} {wrong}")
    return path


def check_tree(entries: Sequence[TreeEntry]) -> tuple[TreeEntry, ...]:
    """Return the files of a tree in order of their paths; raise ``invalid_request``.

    No two may be one on a system that knows no case, and none may be the folder of another.
    """
    if not 0 < len(entries) <= MOST_FILES:
        raise _bad_path(f"a tree has 1 to {MOST_FILES} files, not {len(entries)}")
    files: dict[str, str] = {}
    checked = []
    for entry in entries:
        path = check_path(entry.path)
        first = files.get(_key(path))
        if first is not None:
            raise _bad_path(f"{_show(first)} and {_show(path)} are one path on many systems")
        files[_key(path)] = path
        checked.append(TreeEntry(path, check_sha256(entry.sha256), entry.size))
    for path in files.values():
        parts = _key(path).split("/")
        for depth in range(1, len(parts)):
            taken = files.get("/".join(parts[:depth]))
            if taken is not None:
                raise _bad_path(f"{_show(taken)} is a file, and the folder of {_show(path)}")
    return tuple(sorted(checked))


def write_manifest(entries: Sequence[TreeEntry]) -> bytes:
    """Return the canonical bytes of a checked tree: their SHA-256 is the artifact's.

    JSON without spaces: ``{"files":[{"path":...,"sha256":...,"size":...}],"version":1}``, the files
    in order of the code points of their paths, letters unescaped in UTF-8.
    """
    files = [{"path": e.path, "sha256": e.sha256, "size": e.size} for e in sorted(entries)]
    return msgspec.json.encode({"files": files, "version": MANIFEST_VERSION})


def hash_tree(entries: Sequence[TreeEntry]) -> str:
    """Return the identity of a checked tree."""
    return hashlib.sha256(write_manifest(entries)).hexdigest()


def check_members(
    members: Sequence[Member], archive_bytes: int, limits: UnpackLimits
) -> tuple[Member, ...]:
    """Return the files of an archive, without its folders; raise ``invalid_artifact``.

    Decided by the directory alone, before a byte is unpacked: whoever unpacks reads no more of a
    member than it declares.
    """
    files = tuple(member for member in members if not member.name.endswith("/"))
    if not len(files) > 0 or len(members) > limits.files:
        raise _bad_archive(f"it has {len(members)} entries, 1 to {limits.files} are read")
    end = 0
    for member in sorted(members, key=lambda member: member.begin):
        _check_member(member, limits)
        if member.begin < end or member.end > archive_bytes:
            raise _bad_archive(f"{_show(member.name)} overlaps another entry or the archive's end")
        end = member.end
    total = sum(member.size for member in files)
    if total > limits.total_bytes:
        raise _bad_archive(f"unpacked it has {total} bytes, {limits.total_bytes} are allowed")
    if total > max(SMALL_FILE, limits.ratio * archive_bytes):
        raise _bad_archive(f"it unpacks to more than {limits.ratio} times its size")
    return files


def judge_pickles(pickles: Sequence[Pickle], reason: str | None) -> None:
    """Raise ``invalid_artifact`` for files that run code, unless somebody said why they may."""
    if pickles and reason is None:
        first, *more = pickles
        others = f" (and {len(more)} more)" if more else ""
        raise PilotageError(
            "invalid_artifact",
            f"{_show(first.path)} is a pickle: {first.why}{others}. Loading one runs what it says.",
            hint=(
                "Convert it to safetensors. Who holds registry.pickles.allow may let it in, "
                "with a reason: pilotage models push ... --allow-pickles --reason WHY"
            ),
        )


def draft_evidence(sha256: str, found: Inspection) -> list[EvidenceDraft]:
    """Return what an inspection says to the gates ``scan.format`` and ``licence``."""
    note = f"{found.file_count} files, {found.tensor_count} tensors"
    if found.pickles:
        note = f"{len(found.pickles)} pickles, let in: {found.pickle_reason}"
    elif found.code:
        note = f"{note}; Python files that nothing here runs: {len(found.code)}"
    is_known = found.license is not None and _SPDX.fullmatch(found.license) is not None
    return [
        EvidenceDraft(
            kind="scan.format",
            subject=found.format,
            passed=not found.pickles,
            hash=sha256,
            tool=TOOL,
            note=note[:1000],
        ),
        EvidenceDraft(
            kind="licence",
            subject=(found.license or "")[:200],
            passed=is_known,
            hash=sha256,
            tool=TOOL,
            note=f"said by {found.license_from}" if found.license else "nothing says one",
        ),
    ]


def _check_member(member: Member, limits: UnpackLimits) -> None:
    kind = stat.S_IFMT(member.mode)
    is_folder = member.name.endswith("/")
    check_path(member.name.removesuffix("/"))
    if kind not in ({0, stat.S_IFDIR} if is_folder else {0, stat.S_IFREG}):
        raise _bad_archive(f"{_show(member.name)} is a link or a device")
    if member.is_encrypted or member.method not in KNOWN_METHODS:
        raise _bad_archive(f"{_show(member.name)} is encrypted, or packed in a way not read")
    if is_folder and member.size:
        raise _bad_archive(f"{_show(member.name)} is a folder with content")
    if member.size > max(SMALL_FILE, limits.ratio * member.packed):
        raise _bad_archive(
            f"{_show(member.name)} unpacks to more than {limits.ratio} times its size"
        )


def _key(path: str) -> str:
    """Return what systems take for the same path, whatever they think of case and composition."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _show(text: str) -> str:
    return ascii(text if len(text) <= LONGEST_PART else text[:LONGEST_PART] + "...")


def _bad_path(detail: str) -> PilotageError:
    return PilotageError("invalid_request", f"{detail}.", hint=_HINT, param="path")


def _bad_archive(detail: str) -> PilotageError:
    return PilotageError(
        "invalid_artifact",
        f"The archive is refused: {detail}.",
        hint="Push the folder itself: pilotage models push NAME@VERSION FOLDER",
    )
