"""Fixtures that more than one kind of test shares."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_gguf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model, made once per run.

    Parallel workers share it: each may make it, the bytes are the same, and it appears whole.
    """
    from tiny_model import make_tiny_gguf

    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    path = folder / "tiny.gguf"
    return path if path.exists() else make_tiny_gguf(path)
