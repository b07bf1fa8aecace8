"""Which paths trees may have, what a tree's hash is, and which archives are read."""

import hashlib
import json
import stat
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.registry.artifacts.rules import (
    DEEPEST,
    LONGEST_PART,
    LONGEST_PATH,
    check_members,
    check_path,
    check_sha256,
    check_tree,
    draft_evidence,
    hash_tree,
    judge_pickles,
    write_manifest,
)
from pilotage.registry.artifacts.types import Inspection, Member, Pickle, TreeEntry, UnpackLimits

SHA = "ab" * 32
LIMITS = UnpackLimits(files=3, total_bytes=8 << 20, ratio=10)


def entry(path: str, sha256: str = SHA, size: int = 1) -> TreeEntry:
    return TreeEntry(path, sha256, size)


def member(name: str = "a", begin: int = 0, **more: int) -> Member:
    values = {"size": 10, "packed": 10, "end": begin + 40} | more
    return Member(name=name, begin=begin, **values)  # type: ignore[arg-type]


# paths


@pytest.mark.parametrize(
    "path",
    [
        "model.gguf",
        "a/b/c.json",
        ".hidden",
        "a b/c",
        "größe.txt",
        "模型/权重.bin",
        "a..b",
        "..."[:2] + "x",
    ],
)
def test_a_plain_path_is_one(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "C:evil", "c:/evil", "a\\b", "\\\\host\\share", "a//b", "a/", "./a"),
        *(
            "..",
            "../a",
            "a/../b",
            "a/..",
            "a/./b",
            "a\x00b",
            "a\nb",
            "a\u202eb",
            "\ud800",
            "a\u200b",
        ),
        *(" a", "a ", "a./b", "a/b.", "a/ b", "x" * (LONGEST_PART + 1), "é" * LONGEST_PART),
        *("/".join(["a"] * (DEEPEST + 1)), "/".join(["x" * 100] * 6)),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_path(path)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "path")
    assert refused.value.detail.isprintable()
    assert refused.value.hint


@given(
    st.text(alphabet=st.sampled_from("a.B/\\: \x00é\u202e-"), max_size=20) | st.text(max_size=40)
)
def test_what_is_accepted_stays_below_its_folder_on_every_system(text: str) -> None:
    try:
        path = check_path(text)
    except PilotageError:
        return
    assert path == unicodedata.normalize("NFC", text)
    assert check_path(path) == path
    for kind in (PurePosixPath, PureWindowsPath):
        joined = kind("/root") / path
        assert joined.parts[: len(kind("/root").parts)] == kind("/root").parts
        assert ".." not in joined.parts
        assert "/".join(kind(path).parts) == path
    assert len(path.encode()) <= LONGEST_PATH


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("A", "a"),
        ("d/A", "D/a"),
        ("é", "e\u0301"),
        ("ﬁle", "file"),
        ("straße", "STRASSE"),
        ("a", "a/b"),
        ("x/A", "X/a/b/c"),
    ],
)
def test_two_paths_that_are_one_somewhere_are_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(PilotageError) as refused:
        check_tree([entry(path) for path in paths])
    assert refused.value.code == "invalid_request"


def test_a_tree_has_files_and_a_bounded_number() -> None:
    for entries in ([], [entry(f"f{number}") for number in range(10_001)]):
        with pytest.raises(PilotageError):
            check_tree(entries)


def test_a_hash_is_lower_case_hex() -> None:
    assert check_sha256(SHA) == SHA
    for wrong in (SHA.upper(), SHA[1:], "g" * 64, f"{SHA}\n"):
        with pytest.raises(PilotageError):
            check_sha256(wrong)


@given(st.permutations(["b", "a/z", "a/b", "é", "Z"]))
def test_the_hash_of_a_tree_is_that_of_its_content_in_any_order(paths: list[str]) -> None:
    tree = check_tree([entry(path, hashlib.sha256(path.encode()).hexdigest()) for path in paths])

    manifest = write_manifest(tree)

    assert hash_tree(tree) == hashlib.sha256(manifest).hexdigest()
    assert hash_tree(tree) == hash_tree(tuple(reversed(tree)))
    spelled = {  # by hand, as the reference says
        "files": [{"path": e.path, "sha256": e.sha256, "size": e.size} for e in sorted(tree)],
        "version": 1,
    }
    assert manifest == json.dumps(spelled, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("change", [entry("b"), entry("a", "cd" * 32), entry("a", size=2)])
def test_another_tree_has_another_hash(change: TreeEntry) -> None:
    assert hash_tree([entry("a")]) != hash_tree([change])


# archives


def test_a_plain_archive_is_read_without_its_folders() -> None:
    members = [
        member("d/", 0, size=0, packed=0, mode=stat.S_IFDIR),
        member("d/a", 40, mode=0o100644),
    ]

    assert [item.name for item in check_members(members, 100, LIMITS)] == ["d/a"]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "entries"),
        ([member(f"f{n}", n * 40) for n in range(4)], "entries"),
        ([member(size=9 << 20, packed=9 << 20, end=90)], "are allowed"),
        ([member(size=2 << 20, packed=100)], "times its size"),
        ([member(f"f{n}", n * 40, size=1 << 20, packed=1) for n in range(3)], "times its size"),
        ([member("a", 0), member("b", 39)], "overlaps"),
        ([member("a", 0), member("b", 0)], "overlaps"),
        ([member("a", 0, end=121)], "overlaps"),
        ([member(mode=stat.S_IFLNK | 0o777)], "link"),
        ([member(mode=stat.S_IFIFO)], "link"),
        ([member("d/", mode=stat.S_IFREG), member("a", 40)], "link"),
        ([member("d/", size=1), member("a", 40)], "folder with content"),
        ([member(method=12)], "packed in a way"),
        ([member(is_encrypted=True)], "encrypted"),
    ],
)
def test_an_archive_that_is_none_is_refused_by_its_directory(
    members: list[Member], why: str
) -> None:
    with pytest.raises(PilotageError) as refused:
        check_members(members, 120, LIMITS)
    assert refused.value.code == "invalid_artifact"
    assert why in refused.value.detail


def test_a_path_in_an_archive_is_a_path() -> None:
    for name in ("../a", "/a", "a\\b", "a\x00b", "a" * 300):
        with pytest.raises(PilotageError) as refused:
            check_members([member(name)], 100, LIMITS)
        assert refused.value.detail.isprintable()


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 100), st.integers(0, 4000)),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 300),
)
def test_what_is_accepted_fits_into_the_archive_and_the_limits(
    places: list[tuple[int, int, int]], archive_bytes: int
) -> None:
    limits = UnpackLimits(files=3, total_bytes=5000, ratio=10)
    members = [
        Member(name=f"f{n}", size=size, packed=length, begin=begin, end=begin + length)
        for n, (begin, length, size) in enumerate(places)
    ]
    try:
        files = check_members(members, archive_bytes, limits)
    except PilotageError:
        return
    assert sum(file.size for file in files) <= limits.total_bytes
    covered = [place for file in files for place in range(file.begin, file.end)]
    assert len(covered) == len(set(covered))
    assert all(place < archive_bytes for place in covered)


# pickles and evidence


def test_pickles_come_in_with_a_reason_only() -> None:
    pickles = [Pickle("a.pkl", SHA, "protocol 4"), Pickle("b.pkl", SHA, "protocol 2")]

    with pytest.raises(PilotageError) as refused:
        judge_pickles(pickles, None)
    assert refused.value.code == "invalid_artifact"
    assert "'a.pkl'" in refused.value.detail
    assert "1 more" in refused.value.detail
    assert "registry.pickles.allow" in refused.value.hint
    judge_pickles(pickles, "an old model")
    judge_pickles([], None)
    with pytest.raises(PilotageError, match="protocol 4"):
        judge_pickles(pickles[:1], None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Inspection(license="MIT", license_from="LICENSE"), (True, True, "MIT")),
        (Inspection(license="my own terms"), (True, False, "my own terms")),
        (Inspection(code=("a.py",)), (True, False, "")),
        (
            Inspection(format="pickle", pickles=(Pickle("a", SHA, "x"),), pickle_reason="old"),
            (False, False, ""),
        ),
    ],
)
def test_an_inspection_speaks_to_two_gates(
    found: Inspection, expected: tuple[bool, bool, str]
) -> None:
    scan, licence = draft_evidence(SHA, found)

    assert (scan.kind, licence.kind) == ("scan.format", "licence")
    assert (scan.passed, licence.passed, licence.subject) == expected
    assert scan.subject == found.format
    assert {scan.hash, licence.hash} == {SHA}
    assert ("old" in scan.note, "Python" in scan.note) == (bool(found.pickles), bool(found.code))
