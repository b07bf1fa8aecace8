r"""Templates of prompts: text with ``{{ name }}`` in it, and nothing else that means anything.

There are no conditions, loops, filters or calls, so that a template cannot do anything and a value
is never read as a template: what a value says arrives as it was given. A backslash before ``{{``
makes two plain braces of it (``\{{``); of several backslashes each pair is one. All other braces
are text, so that JSON can be written as it is: in a run of braces the last two begin a variable.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_VARIABLE_NAME = 64
_OPEN = re.compile(r"(\\*)\{\{(?!\{)")
_REST = re.compile(r"[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Slot(NamedTuple):
    """A place for the value of a variable."""

    name: str


class Template(NamedTuple):
    """A parsed template: its text and its slots, in order."""

    parts: tuple[str | Slot, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The variables in it, each once, in the order in which they appear."""
        slots = (part.name for part in self.parts if isinstance(part, Slot))
        return tuple(dict.fromkeys(slots))

    def measure(self, values: Mapping[str, str]) -> int:
        """Return how many letters :meth:`render` would return, without making them."""
        return sum(
            len(values[part.name] if isinstance(part, Slot) else part) for part in self.parts
        )

    def render(self, values: Mapping[str, str]) -> str:
        """Return the text with every slot filled; raise KeyError for a variable without a value.

        Values go in as they are: braces in them mean nothing.
        """
        return "".join(values[part.name] if isinstance(part, Slot) else part for part in self.parts)


def parse_template(text: str) -> Template:
    """Read a template; raise ValueError that says what is wrong and on which line."""
    parts: list[str | Slot] = []
    plain, at = "", 0
    while (opened := _OPEN.search(text, at)) is not None:
        backslashes = len(opened[1])
        plain += text[at : opened.start()] + "\\" * (backslashes // 2)
        if backslashes % 2:
            plain, at = plain + "{{", opened.end()
            continue
        rest = _REST.match(text, opened.end())
        if rest is None:
            raise ValueError(_explain(text, opened.end()))
        slot = Slot(check_variable_name(rest[1]))
        parts += [plain, slot] if plain else [slot]
        plain, at = "", rest.end()
    plain += text[at:]
    return Template((*parts, plain) if plain else tuple(parts))


def check_variable_name(name: str) -> str:
    """Return the name of a variable; raise ValueError for one that no template can have."""
    if len(name) > MAX_VARIABLE_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is no variable (use 1 to {MAX_VARIABLE_NAME} letters, digits and '_', "
            "not beginning with a digit)"
        )
    return name


def _explain(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    shown = text[at : at + 20].partition("\n")[0]
    return (
        f"line {line}: after '{{{{' comes {shown!r}, not NAME and '}}}}' "
        r"(write \{{ for two plain braces)"
    )
