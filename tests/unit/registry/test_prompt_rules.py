"""What differs between two versions of a prompt, and which numbers are taken."""

from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.prompts import PromptContent, read_content
from pilotage.core.semver import parse_semver
from pilotage.registry.prompts.rules import diff_contents, is_taken, sort_prompt_versions
from pilotage.registry.prompts.types import PromptSummary, Provenance

REFS = ("a@1.0.0", "a@1.1.0")
CONTENTS = st.fixed_dictionaries(
    {"text": st.sampled_from(["x", "x\ny", "{{ a }}"])},
    optional={
        "description": st.sampled_from(["one", "two\nlines"]),
        "response_schema": st.sampled_from([{"type": "object"}, {"type": "array"}]),
        "parameters": st.sampled_from([{"top_p": 0.5}, {"top_p": 0.6, "stop": ["a"]}]),
    },
).map(read_content)


@given(CONTENTS, CONTENTS)
def test_there_is_a_difference_exactly_where_contents_differ(
    before: PromptContent, after: PromptContent
) -> None:
    assert bool(diff_contents(before, after, REFS)) == (before != after)


def test_a_difference_is_shown_by_line() -> None:
    before = read_content(
        {
            "messages": [
                {"role": "system", "content": "Be {{ tone }}."},
                {"role": "user", "content": "one\ntwo"},
            ],
            "variables": [{"name": "tone", "default": "kind"}],
        }
    )
    after = read_content(
        {
            "messages": [
                {"role": "system", "content": "Be {{ tone }}."},
                {"role": "user", "content": "one\nthree"},
            ],
            "variables": [{"name": "tone", "default": "stern"}],
            "parameters": {"temperature": 0.5},
        }
    )

    assert list(diff_contents(before, after, REFS)) == [
        "--- a@1.0.0",
        "+++ a@1.1.0",
        "@@ -2,7 +2,8 @@",
        " Be {{ tone }}.",
        " # user",
        " one",
        "-two",
        "+three",
        " # variable tone",
        '-default: "kind"',
        '+default: "stern"',
        " required: false",
        "+# parameter temperature: 0.5",
    ]


def test_versions_are_in_semantic_order() -> None:
    def make(version: str) -> PromptSummary:
        return PromptSummary(
            id="pmv_1",
            project_id="prj_1",
            prompt_id="pmt_1",
            prompt="a",
            version=version,
            sha256="",
            description="",
            provenance=Provenance(),
            created_at_us=0,
            created_by="",
        )

    ordered = sort_prompt_versions(map(make, ("1.10.0", "2.0.0-rc.1", "1.9.0", "2.0.0")))

    assert [item.ref for item in ordered] == ["a@1.9.0", "a@1.10.0", "a@2.0.0-rc.1", "a@2.0.0"]


def test_build_metadata_makes_no_other_number() -> None:
    assert is_taken(["1.0.0+a"], parse_semver("1.0.0+b"))
    assert not is_taken(["1.0.0-rc.1"], parse_semver("1.0.0"))
