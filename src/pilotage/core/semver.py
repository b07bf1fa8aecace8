"""Semantic versions (semver.org 2.0.0), strict, with the precedence of its section 11."""

import functools
import re
from dataclasses import dataclass

_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_MAX_LENGTH = 255


@functools.total_ordering
@dataclass(frozen=True, slots=True, kw_only=True)
class SemVer:
    """One version; build metadata is kept but takes no part in order or equality."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: str = ""

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        return f"{text}+{self.build}" if self.build else text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SemVer) and self.sort_key() == other.sort_key()

    def __lt__(self, other: "SemVer") -> bool:
        return self.sort_key() < other.sort_key()

    def __hash__(self) -> int:
        return hash(self.sort_key())

    def sort_key(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        """Order by numbers; pre-releases before the release; numeric identifiers before words."""
        identifiers = tuple(
            (False, int(part), "") if part.isdigit() else (True, 0, part)
            for part in self.prerelease
        )
        return (self.major, self.minor, self.patch, not self.prerelease, identifiers)

    def text_key(self) -> str:
        """Return the same order as text that is compared byte by byte, for databases.

        A number is written with the count of its digits (two hexadecimal digits) before it; ``~``
        ends a release and ``-`` begins a pre-release; ``!``, lower than every letter of an
        identifier, ends a word.
        """
        numbers = "".join(map(_number_key, (self.major, self.minor, self.patch)))
        if not self.prerelease:
            return numbers + "~"
        return f"{numbers}-" + "".join(
            f"0{_number_key(int(part))}" if part.isdigit() else f"1{part}!"
            for part in self.prerelease
        )


def _number_key(number: int) -> str:
    digits = str(number)
    return f"{len(digits):02x}{digits}"


def parse_semver(text: str) -> SemVer:
    """Read a version; raise ValueError that says what a version looks like."""
    match = _SEMVER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise ValueError(
            f"not a semantic version: {text[:80]!r} (write MAJOR.MINOR.PATCH, for example 1.0.0)"
        )
    major, minor, patch, prerelease, build = match.groups()
    return SemVer(
        major=int(major),
        minor=int(minor),
        patch=int(patch),
        prerelease=tuple(prerelease.split(".")) if prerelease else (),
        build=build or "",
    )
