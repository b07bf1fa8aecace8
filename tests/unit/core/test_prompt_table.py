"""The section of prompts against a dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.prompt_table import FoundPrompt, PromptTable, PublishedPrompt, pack_prompts

FEW = st.sampled_from(["a", "b", "c"])
PROMPTS = st.dictionaries(
    st.tuples(FEW, FEW, st.sampled_from(["1.0.0", "1.1.0", "2.0.0"])), st.binary(max_size=20)
)


@given(PROMPTS, st.randoms(use_true_random=False))
def test_versions_and_labels_are_found(
    contents: dict[tuple[str, str, str], bytes], random: object
) -> None:
    newest = {(project, name): max(key[2] for key in contents if key[:2] == (project, name))
              for project, name, _ in contents}  # fmt: skip
    prompts = [
        PublishedPrompt(*key, ["latest"] if newest[key[:2]] == key[2] else [], content)
        for key, content in contents.items()
    ]
    packed = pack_prompts(prompts)

    assert pack_prompts(reversed(prompts)) == packed
    for table in (PromptTable(packed), PromptTable(memoryview(packed))):
        assert len(table) == len(contents) + len(newest)
        for project in "abcd":
            for name in "abc":
                for version in ("1.0.0", "1.1.0", "2.0.0", "latest", ""):
                    meant = newest.get((project, name)) if version == "latest" else version
                    content = contents.get((project, name, meant or ""))
                    found = None if content is None else FoundPrompt(f"{name}@{meant}", content)
                    assert table.find(project, name, version) == found


def test_no_prompts_are_no_bytes() -> None:
    assert pack_prompts([]) == b""
    assert PromptTable(b"").find("a", "b", "c") is None


def test_a_cut_table_is_refused() -> None:
    packed = pack_prompts([PublishedPrompt("p", "n", "1.0.0", [], b"{}")])

    with pytest.raises(ValueError, match="is cut"):
        PromptTable(packed[:40])
