"""What the registry of prompts decides: the order of versions, and what differs between two."""

import difflib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pilotage.core.prompts import PromptContent
from pilotage.core.semver import SemVer, parse_semver
from pilotage.registry.prompts.types import PromptSummary


def sort_prompt_versions(versions: Iterable[PromptSummary]) -> list[PromptSummary]:
    """Return versions from lowest to highest by semantic version."""
    return sorted(versions, key=lambda item: parse_semver(item.version).sort_key())


def is_taken(numbers: Iterable[str], wanted: SemVer) -> bool:
    """Say whether there is, or was, a version of equal precedence."""
    return any(parse_semver(number) == wanted for number in numbers)


def diff_contents(
    before: PromptContent, after: PromptContent, refs: tuple[str, str]
) -> Sequence[str]:
    """Return what differs as the lines of a unified diff, none if nothing does."""
    old, new = list(_describe(before)), list(_describe(after))
    return list(difflib.unified_diff(old, new, *refs, lineterm=""))


def _describe(content: PromptContent) -> Iterator[str]:
    """Yield a content as lines that people read: each message under its role, then the rest."""
    for message in content.list_messages():
        yield f"# {message.role}" if content.messages else "# text"
        yield from message.content.split("\n")
    for variable in content.variables:
        yield f"# variable {variable.name}"
        for name, value in sorted(msgspec.to_builtins(variable).items()):
            if name != "name":
                yield f"{name}: {_show(value)}"
    for name, value in sorted(msgspec.to_builtins(content.parameters).items()):
        yield f"# parameter {name}: {_show(value)}"
    if content.response_schema is not None:
        yield "# response schema"
        yield from _show(content.response_schema, indent=2).split("\n")
    if content.description:
        yield "# description"
        yield from content.description.split("\n")


def _show(value: object, indent: int = -1) -> str:
    encoded = msgspec.json.encode(value, order="sorted")
    return msgspec.json.format(encoded, indent=indent).decode()
