"""Which licence a text is, as an SPDX id: by what it says, never by the name of its file.

The phrases are those that no other licence of the list has; ids are those of spdx.org/licenses.
"""

import re

_BY_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Apache-2.0", ("apache license", "version 2.0, january 2004")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3, 19 november 2007")),
    ("GPL-3.0-only", ("gnu general public license", "version 3, 29 june 2007")),
    ("GPL-2.0-only", ("gnu general public license", "version 2, june 1991")),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("CC-BY-NC-SA-4.0", ("attribution-noncommercial-sharealike 4.0 international",)),
    ("CC-BY-NC-4.0", ("attribution-noncommercial 4.0 international",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    (
        "BSD-3-Clause",
        ("redistribution and use in source and binary forms", "neither the name of"),
    ),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software",)),
    ("MIT", ("permission is hereby granted, free of charge", 'the software is provided "as is"')),
    ("LicenseRef-llama", ("llama", "community license agreement")),
    ("LicenseRef-gemma", ("gemma terms of use",)),
)
_SPELLINGS = {
    spdx.lower(): spdx
    for spdx in (
        *(name for name, _ in _BY_PHRASES),
        "AGPL-3.0-or-later",
        "BSL-1.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-3.0",
        "CC-BY-SA-3.0",
        "CDLA-Permissive-2.0",
        "ECL-2.0",
        "EPL-2.0",
        "EUPL-1.2",
        "GPL-2.0-or-later",
        "GPL-3.0-or-later",
        "LGPL-2.1-only",
        "LGPL-3.0-or-later",
        "MS-PL",
        "ODC-By-1.0",
        "Unlicense",
        "WTFPL",
        "Zlib",
    )
} | {
    "agpl-3.0": "AGPL-3.0-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "lgpl-3.0": "LGPL-3.0-only",
    "odc-by": "ODC-By-1.0",
}
_UNSAID = {"", "other", "unknown"}
_SPDX_LINE = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9][A-Za-z0-9.+-]*)")
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"^(license|license_name):[ \t]*['\"]?([^\s'\"#\[\]]+)", re.MULTILINE)
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9.-]+")


def detect_licence(text: str) -> str | None:
    """Return the SPDX id of a licence's text; None if it is none that is known."""
    stated = _SPDX_LINE.search(text)
    if stated:
        return spell_licence(stated[1])
    plain = " ".join(text.lower().split())
    for spdx, phrases in _BY_PHRASES:
        if all(phrase in plain for phrase in phrases):
            return spdx
    return None


def read_front_matter(text: str) -> str | None:
    """Return the licence that the front matter of a model card names, as an SPDX id."""
    front = _FRONT.match(text)
    if front is None:
        return None
    stated = dict(_FIELD.findall(front[1]))
    for field in ("license", "license_name"):  # "license: other" has its name in the second
        if stated.get(field, "").lower() not in _UNSAID:
            return spell_licence(stated[field])
    return None


def spell_known(text: str) -> str:
    """Return an id as SPDX spells it; any other text as it is."""
    return _SPELLINGS.get(text.lower(), text)


def spell_licence(text: str) -> str:
    """Return an id as SPDX spells it; ``LicenseRef-...`` for one that SPDX does not know."""
    known = _SPELLINGS.get(text.lower())
    if known is not None or text.startswith("LicenseRef-"):
        return known or text
    return f"LicenseRef-{_NOT_IN_IDS.sub('-', text)[:60].strip('-')}"
