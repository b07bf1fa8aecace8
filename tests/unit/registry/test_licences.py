"""Licences by what their texts say, and as model cards name them."""

from pathlib import Path

import pytest

from pilotage.registry.licences import (
    detect_licence,
    read_front_matter,
    spell_known,
    spell_licence,
)

OURS = Path(__file__).parents[3] / "LICENSE"
MIT = """Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy ...
THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND
"""
BSD = "Redistribution and use in source and binary\n   forms, with or without modification"


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        (OURS.read_text(), "Apache-2.0"),
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (BSD + " Neither the name of the holder", "BSD-3-Clause"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 3, 29 June 2007", "LGPL-3.0-only"),
        ("GNU GENERAL PUBLIC LICENSE Version 2, June 1991", "GPL-2.0-only"),
        ("Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0"),
        ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "LicenseRef-llama"),
        ("SPDX-License-Identifier: mit", "MIT"),
        ("SPDX-License-Identifier: Own-1.0", "LicenseRef-Own-1.0"),
        ("You may do as you like.", None),
        ("", None),
    ],
)
def test_a_text_is_known_by_what_it_says(text: str, spdx: str | None) -> None:
    assert detect_licence(text) == spdx


@pytest.mark.parametrize(
    ("card", "spdx"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- a\n---\n# Card", "Apache-2.0"),
        ("---\r\nlicense: 'mit'\r\n---\r\n", "MIT"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "LicenseRef-qwen-research"),
        ("---\nlicense: gpl-3.0\n---", "GPL-3.0-only"),
        ("---\ntags: []\n---\nlicense: mit", None),
        ("---\nlicense: unknown\n---\n", None),
        ("license: mit", None),
        ("---\nlicense: mit\n", None),
    ],
)
def test_a_card_names_one_in_its_front_matter(card: str, spdx: str | None) -> None:
    assert read_front_matter(card) == spdx


def test_ids_are_spelled_as_spdx_does() -> None:
    assert spell_licence("CC-by-4.0") == "CC-BY-4.0"
    assert spell_licence("LicenseRef-x") == "LicenseRef-x"
    assert spell_licence("my terms; see/there") == "LicenseRef-my-terms-see-there"
    assert (spell_known("APACHE-2.0"), spell_known("my terms")) == ("Apache-2.0", "my terms")
