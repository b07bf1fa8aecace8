"""The reference pages say what the code says."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_reference_pages_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location(
        "make_reference", ROOT / "tools" / "make_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.make_pages().items():
        there = (ROOT / "docs" / "reference" / name).read_text()
        assert there == text, f"docs/reference/{name} is stale: run make docs"
