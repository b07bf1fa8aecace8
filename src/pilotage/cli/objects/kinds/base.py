"""What every kind of object has, and what checking them needs."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from pilotage.core.names import check_name


class Object(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object; without ``project`` it belongs to the command's."""

    project: str | None = None

    @property
    def title(self) -> str:
        """How it is called among its kind."""
        return str(getattr(self, "name", ""))

    def check(self) -> None:
        """Raise ValueError or ``invalid_request`` if its values cannot be right together."""
        check_name(self.title)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of an object."""


def list_given(item: msgspec.Struct, *other_than: str) -> dict[str, Any]:
    """Return the fields of an object that are given."""
    fields = msgspec.structs.asdict(item)
    return {k: v for k, v in fields.items() if v is not None and k not in other_than}


def check_percent(percent: Decimal, place: str) -> None:
    """Raise ValueError for what is no percentage."""
    if not (percent.is_finite() and 0 <= percent <= 100):
        raise ValueError(f"{place}: {percent} % is no share")


def join(names: Sequence[str]) -> str:
    """Write names for people."""
    return ", ".join(names)
