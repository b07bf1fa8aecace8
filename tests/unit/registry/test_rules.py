"""How versions are written, ordered and chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.semver import parse_semver
from pilotage.registry.rules import (
    check_version,
    find_equal,
    list_behind,
    parse_ref,
    pick_newest,
    sort_versions,
)
from pilotage.registry.types import ModelVersion

NUMBER = st.integers(0, 12)
VERSIONS = st.builds(
    "{}.{}.{}{}".format, NUMBER, NUMBER, NUMBER, st.sampled_from(["", "", "-rc.1", "-rc.11"])
)
LISTS = st.lists(VERSIONS, unique=True, max_size=8)


def make_version(version: str) -> ModelVersion:
    return ModelVersion(
        id=f"ver_{version}",
        rev=1,
        project_id="prj",
        model_id="mdl",
        version=version,
        artifact_sha256="",
        source="manual",
        license="",
        description="",
        context_tokens=0,
        created_at_us=0,
        created_by="usr",
        deleted_at_us=None,
    )


@given(LISTS, st.integers(1, 3))
def test_pages_hold_everything_in_order_once(versions: list[str], size: int) -> None:
    items = [make_version(version) for version in versions]
    pages: list[str] = []
    while page := list_behind(items, pages[-1] if pages else "")[:size]:
        pages += [item.version for item in page]

    assert pages == [item.version for item in sort_versions(items)]
    assert sorted(pages) == sorted(versions)


@given(LISTS)
def test_the_newest_is_the_highest_release(versions: list[str]) -> None:
    newest = pick_newest([make_version(version) for version in versions])

    releases = [parse_semver(version) for version in versions if "-" not in version]
    candidates = releases or [parse_semver(version) for version in versions]
    assert (parse_semver(newest.version) if newest else None) == max(candidates, default=None)


def test_build_metadata_makes_no_other_version() -> None:
    there = [make_version("1.0.0+a"), make_version("1.0.1")]

    assert find_equal(there, parse_semver("1.0.0+b")) == there[0]
    assert find_equal(there, parse_semver("1.0.0-rc.1")) is None


def test_a_reference_names_a_model_and_perhaps_a_version() -> None:
    assert parse_ref("tiny") == ("tiny", None)
    assert parse_ref("tiny@1.0.0") == ("tiny", "1.0.0")


@pytest.mark.parametrize("text", ["tiny@", "tiny@1.0", "tiny@v1.0.0", "tiny@1.0.0@2"])
def test_a_reference_to_no_version_is_refused(text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        parse_ref(text)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "version")


def test_a_version_is_semantic() -> None:
    assert str(check_version("1.2.3-rc.1+b")) == "1.2.3-rc.1+b"
