"""What the registry decides: how versions are written, ordered and chosen."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from pilotage.core.errors import PilotageError
from pilotage.core.semver import SemVer, parse_semver
from pilotage.registry.types import ModelVersion

Version = TypeVar("Version", bound=ModelVersion)


class VersionRef(NamedTuple):
    """What ``NAME@VERSION`` or ``NAME`` points to."""

    model: str
    version: str | None


def parse_ref(text: str) -> VersionRef:
    """Read ``NAME@VERSION`` or ``NAME``; raise ``invalid_request`` for a bad version."""
    model, at, version = text.partition("@")
    if not at:
        return VersionRef(model, None)
    return VersionRef(model, str(check_version(version)))


def check_version(text: str) -> SemVer:
    """Return a semantic version; raise ``invalid_request`` that says what one looks like."""
    try:
        return parse_semver(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"version: {wrong}.", param="version") from None


def sort_versions(versions: Iterable[Version]) -> list[Version]:
    """Return versions from lowest to highest by semantic version."""
    return sorted(versions, key=lambda item: parse_semver(item.version).sort_key())


def list_behind(versions: Iterable[Version], after: str) -> list[Version]:
    """Return versions above one (empty: all), from lowest to highest."""
    ordered = sort_versions(versions)
    if not after:
        return ordered
    border = check_version(after).sort_key()
    return [item for item in ordered if parse_semver(item.version).sort_key() > border]


def pick_newest(versions: Sequence[Version]) -> Version | None:
    """Return the highest release; the highest pre-release where there is no release."""
    ordered = sort_versions(versions)
    releases = [item for item in ordered if not parse_semver(item.version).prerelease]
    candidates = releases or ordered
    return candidates[-1] if candidates else None


def find_equal(versions: Iterable[Version], wanted: SemVer) -> Version | None:
    """Return the version of equal precedence: build metadata makes no other version."""
    return next((item for item in versions if parse_semver(item.version) == wanted), None)
