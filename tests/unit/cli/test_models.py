"""Names and numbers of models that are added without one."""

import pytest

from pilotage.cli.models import make_name, next_version
from pilotage.core.names import check_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SmolLM2 135M Instruct", "smollm2-135m-instruct"),
        ("Qwen/Qwen3-0.6B", "qwen-qwen3-0.6b"),
        ("  --weird..", "weird"),
        ("größe", "gr-e"),
        ("", "file-name"),
        ("???", "file-name"),
        ("x" * 100, "x" * 63),
        ("a" * 62 + ".b", "a" * 62),
    ],
)
def test_a_model_is_named_after_what_its_file_says(text: str, name: str) -> None:
    made = make_name(text, "File Name")

    assert made == check_name(name)


def test_a_file_without_any_letter_is_a_model() -> None:
    assert make_name("", "???") == "model"


@pytest.mark.parametrize(
    ("there", "following"),
    [
        ([], "1.0.0"),
        (["1.0.0"], "1.0.1"),
        (["1.10.0", "1.9.3"], "1.10.1"),
        (["2.0.0-rc.1", "1.0.0"], "2.0.0"),
        (["1.0.0+build.5"], "1.0.1"),
    ],
)
def test_the_next_version_is_a_patch_or_the_release(there: list[str], following: str) -> None:
    assert next_version(there) == following
