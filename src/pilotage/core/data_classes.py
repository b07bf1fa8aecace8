"""What each class of data forbids: the one table that gateways enforce.

A tenant says the class of what it sends. An upstream says up to which class it is accepted
(``accepts``); restricted data is for own engines, and for upstreams that run in the house.
The classes are ordered: whatever is refused for one is refused for the next.
"""

from typing import NamedTuple


class DataClassRule(NamedTuple):
    """One class of data, from the most open to the closest.

    ``leaves_house``: providers' APIs may answer it, those that accept it. ``is_copied_out``: shadow
    copies of it may go to a provider too. ``is_logged``: the request log may have a line of its
    calls (never a text), and a share of its texts may be measured in memory. Replies kept for an
    idempotency key stay in the memory of one gateway process whatever the class, and no text is
    written down.
    """

    name: str
    means: str
    leaves_house: bool
    is_copied_out: bool
    is_logged: bool


PUBLIC, INTERNAL = "public", "internal"
CONFIDENTIAL, RESTRICTED = "confidential", "restricted"
DATA_CLASSES: dict[str, DataClassRule] = {
    rule.name: rule
    for rule in (
        DataClassRule(
            PUBLIC, "may be read by anybody", leaves_house=True, is_copied_out=True, is_logged=True
        ),
        DataClassRule(
            INTERNAL,
            "is for the house, and does little harm outside",
            leaves_house=True,
            is_copied_out=True,
            is_logged=True,
        ),
        DataClassRule(
            CONFIDENTIAL,
            "does harm outside the house",
            leaves_house=True,
            is_copied_out=False,
            is_logged=True,
        ),
        DataClassRule(
            RESTRICTED,
            "must not leave the house",
            leaves_house=False,
            is_copied_out=False,
            is_logged=False,
        ),
    )
}
_RANK = {name: rank for rank, name in enumerate(DATA_CLASSES)}


def may_answer(data_class: str, accepts: str) -> bool:
    """Say whether an upstream that accepts so much may answer a call of a class.

    Own engines (``accepts`` is "") answer all; what is not a class known here is restricted.
    """
    if not accepts:
        return True
    return _RANK.get(data_class, _RANK[RESTRICTED]) <= _RANK.get(accepts, -1)


def may_copy(data_class: str, accepts: str) -> bool:
    """Say whether a shadow copy of a call may go to a target; what is in the house takes all."""
    return accepts in ("", RESTRICTED) or get_rule(data_class).is_copied_out


def get_rule(data_class: str) -> DataClassRule:
    """Return the rule of a class; of what is no class known here, the closest."""
    return DATA_CLASSES.get(data_class, DATA_CLASSES[RESTRICTED])
