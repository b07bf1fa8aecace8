"""The chain of the audit log as an algebra: whole chains pass, any single change shows."""

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilotage.audit.rules import find_difference, find_flaw, hash_entry, make_entry
from pilotage.audit.types import GENESIS, AuditEntry, Content

TEXT = st.text(max_size=8)
NUMBER = st.integers(0, 2**53)
CONTENTS = st.builds(
    Content,
    revision_seq=NUMBER,
    at_us=NUMBER,
    project_id=st.none() | TEXT,
    event=TEXT,
    object_id=TEXT,
    rev=NUMBER,
    actor=TEXT,
    reason=TEXT,
    before=st.none() | TEXT,
    after=TEXT,
)
NAMES = [field.name for field in fields(AuditEntry)]


def chain(contents: list[Content]) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for content in contents:
        entries.append(make_entry(content, entries[-1] if entries else None))
    return entries


def find_first_flaw(entries: list[AuditEntry], contents: list[Content]) -> str:
    last = None
    for entry, content in zip(entries, contents, strict=True):
        problem = find_flaw(entry, last) or find_difference(entry, content)
        if problem:
            return problem
        last = entry
    return ""


@given(st.lists(CONTENTS, max_size=5))
def test_a_chain_is_without_flaw(contents: list[Content]) -> None:
    entries = chain(contents)

    assert find_first_flaw(entries, contents) == ""
    assert [entry.position for entry in entries] == list(range(1, len(contents) + 1))


@given(st.lists(CONTENTS, min_size=1, max_size=5), st.data(), st.sampled_from(NAMES), TEXT, NUMBER)
def test_any_single_change_shows(
    contents: list[Content], data: st.DataObject, name: str, text: str, number: int
) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 1))
    old = getattr(entries[index], name)
    new = number if isinstance(old, int) else text
    if new == old:
        new = old + (1 if isinstance(old, int) else "x")
    changes: dict[str, Any] = {name: new}
    entries[index] = replace(entries[index], **changes)

    assert find_first_flaw(entries, contents)


@given(st.lists(CONTENTS, min_size=2, max_size=5), st.data())
def test_a_missing_entry_shows(contents: list[Content], data: st.DataObject) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 2))
    del entries[index], contents[index]

    assert "there is no entry" in find_first_flaw(entries, contents)


@given(st.lists(CONTENTS, min_size=1, max_size=5), st.data(), CONTENTS)
def test_a_change_rehashed_alone_breaks_the_next_link_or_differs(
    contents: list[Content], data: st.DataObject, forged: Content
) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 1))
    entries[index] = make_entry(forged, entries[index - 1] if index else None)

    assert bool(find_first_flaw(entries, contents)) == (forged != contents[index])


def test_the_hash_is_sha256_of_sorted_compact_json() -> None:
    content = Content(
        revision_seq=7,
        at_us=1,
        project_id=None,
        event="things.thing.changed",
        object_id="thing_1",
        rev=2,
        actor="usr_1",
        reason="why",
        before=None,
        after='{"n":1}',
    )
    entry = make_entry(content, None)
    hashed = {name: getattr(entry, name) for name in NAMES if name != "hash"}

    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
    assert entry.hash == hash_entry(entry) == hashlib.sha256(text.encode()).hexdigest()
    assert entry.previous_hash == GENESIS
