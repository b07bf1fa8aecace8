"""What datasets are decided by: numbers, drafts, leaks, deletion, comparison, evidence."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.registry.datasets.rules import (
    check_choice,
    check_draft,
    compare,
    count_splits,
    draft_evidence,
    hash_manifest,
    judge_leaks,
    list_obstacles,
    make_key,
    write_manifest,
)
from pilotage.registry.datasets.types import (
    Checked,
    DataFile,
    DatasetDraft,
    DatasetVersion,
    Split,
    SplitCount,
)

SHA, OTHER = "ab" * 32, "cd" * 32
DRAFT = DatasetDraft(version="1.0.0", format="jsonl", files={"train": {"a.jsonl": SHA}})
VERSION = DatasetVersion(
    id="dsv_1",
    rev=1,
    project_id="prj_1",
    dataset_id="ds_1",
    dataset="questions",
    version="1.0.0",
    version_key="",
    manifest_sha256=SHA,
    format="jsonl",
    license="",
    source="",
    description="",
    splits=(SplitCount("train", 1, 10, 100),),
    schema={"q": {"string": 10}, "n": {"integer": 10}},
    records=10,
    size_bytes=100,
    duplicates=0,
    leaks={},
    leak_reason="",
    pii="unknown",
    pii_scanned_by="",
    pii_findings={},
    keep_until_us=None,
    hold_reason="",
    blocked_by="",
    looked_at_us=0,
    derived_from_id="",
    created_at_us=0,
    created_by="usr_1",
    deleted_at_us=None,
)


def test_versions_are_numbers_or_dates() -> None:
    assert make_key("semver", "1.10.0")[0] == "1.10.0"
    assert make_key("semver", "1.9.0")[1] < make_key("semver", "1.10.0")[1]
    ordered = ["2026-01-31", "2026-02-01", "2026-02-01.2", "2026-02-01.10", "2026-10-01"]
    keys = [make_key("date", text)[1] for text in ordered]
    assert keys == sorted(keys)
    assert make_key("date", "2026-02-01.1")[1] == make_key("date", "2026-02-01")[1]


@pytest.mark.parametrize(
    ("numbering", "text"),
    [
        ("semver", "2026-01-01"),
        ("semver", "1.0"),
        ("date", "1.0.0"),
        ("date", "2026-13-01"),
        ("date", "2026-1-1"),
        ("date", "2026-01-01.0"),
        ("date", "٢٠٢٦-01-01"),
    ],
)
def test_another_number_is_none(numbering: str, text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        make_key(numbering, text)
    assert refused.value.param == "version"


def test_a_choice_is_one_of_those_there_are() -> None:
    assert check_choice(Split, "test", "split") is Split.TEST
    with pytest.raises(PilotageError, match="train, validation, test"):
        check_choice(Split, "dev", "split")


def test_the_files_of_a_draft_are_in_order() -> None:
    files = {"train": {"b": SHA, "a/c": OTHER}, "test": {"b": SHA}}
    assert check_draft(replace(DRAFT, files=files)) == (
        ("test", "b", SHA),
        ("train", "a/c", OTHER),
        ("train", "b", SHA),
    )


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"format": "xml"}, "format"),
        ({"pii": "some"}, "pii"),
        ({"license": "x" * 1001}, "license"),
        ({"files": {}}, "path"),
        ({"files": {"dev": {"a": SHA}}}, "files"),
        ({"files": {"train": {"../a": SHA}}}, "path"),
        ({"files": {"train": {"a": "ab"}}}, "sha256"),
        ({"files": {"train": {"a": SHA, "A": SHA}}}, "path"),
        ({"pii_findings": {"E Mail": 1}}, "pii_findings"),
        ({"pii_findings": {"email": -1}}, "pii_findings"),
        ({"pii_findings": {f"kind{n}": 1 for n in range(101)}}, "pii_findings"),
        ({"pii": "none", "pii_findings": {"email": 1}}, "pii"),
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(change: dict[str, object], param: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_draft(replace(DRAFT, **change))  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


FILES = [
    DataFile("train", "a", SHA, 10, 3),
    DataFile("train", "b", OTHER, 20, 4),
    DataFile("test", "a", SHA, 10, 3),
]


@given(st.permutations(FILES))
def test_the_identity_of_a_version_is_its_content_in_any_order(files: list[DataFile]) -> None:
    manifest = write_manifest("jsonl", files)
    assert manifest == write_manifest("jsonl", FILES)
    assert hash_manifest(manifest) != hash_manifest(write_manifest("csv", files))
    assert count_splits(files) == (SplitCount("train", 2, 7, 30), SplitCount("test", 1, 3, 10))


def test_leaks_need_a_reason() -> None:
    leaking = Checked(records={}, schema={}, duplicates=0, leaks={"test and train": 2})
    with pytest.raises(PilotageError, match="2 in test and train") as refused:
        judge_leaks(leaking, "  ")
    assert refused.value.code == "invalid_dataset"
    judge_leaks(leaking, "they are meant to be")
    judge_leaks(replace(leaking, leaks={}), "")
    judge_leaks(replace(leaking, leaks=None), "")


def test_what_keeps_a_version_is_told() -> None:
    assert list_obstacles(VERSION, 10, []) == []
    kept = replace(VERSION, keep_until_us=11, hold_reason="case 4711")
    assert list_obstacles(kept, 10, ["release golden"]) == [
        "it is held: case 4711",
        "the time it is kept for is not over",
        "release golden refers to it",
    ]
    assert list_obstacles(replace(VERSION, keep_until_us=10), 10, []) == []


def test_two_versions_are_compared() -> None:
    after = replace(
        VERSION,
        splits=(SplitCount("train", 1, 12, 1), SplitCount("test", 1, 2, 1)),
        schema={"q": {"string": 1}, "n": {"integer": 1, "null": 1}, "new": {"string": 1}},
    )
    new = [DataFile("train", "a", OTHER, 1, 1), DataFile("train", "c", SHA, 1, 1)]

    found = compare(VERSION, after, FILES, new)

    assert (found.added, found.removed) == (["train/c"], ["test/a", "train/b"])
    assert found.changed == ["train/a"]
    assert found.records == {"train": (10, 12), "test": (0, 2)}
    assert found.fields == {"n": (["integer"], ["integer", "null"]), "new": ([], ["string"])}


@pytest.mark.parametrize(
    ("change", "pii", "leakage"),
    [
        ({}, None, True),
        ({"pii": "none", "pii_scanned_by": "presidio"}, True, True),
        ({"pii": "none"}, False, True),
        ({"pii": "masked", "leaks": None}, True, None),
        ({"pii": "tokenised", "leaks": {"test and train": 1}}, True, False),
        ({"pii": "contains", "pii_findings": {"email": 2}}, False, True),
    ],
)
def test_a_version_speaks_to_two_gates(
    change: dict[str, object], pii: bool | None, leakage: bool | None
) -> None:
    first, second = draft_evidence(replace(VERSION, **change))  # type: ignore[arg-type]

    assert (first.kind, first.passed) == ("data.pii", pii)
    assert (second.kind, second.passed) == ("data.leakage", leakage)
    assert {first.dataset_version_id, second.dataset_version_id} == {"dsv_1"}
