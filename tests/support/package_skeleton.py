"""A copy of the package's folders without its code, to plant violations in."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_skeleton(folder: Path) -> Path:
    """Copy every module of the package as an empty file, and the settings of the checks."""
    for module in (ROOT / "src").rglob("*.py"):
        plant(folder, module.relative_to(ROOT / "src").as_posix(), "")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def plant(folder: Path, path: str, text: str) -> None:
    """Write a module into a skeleton, with the packages above it."""
    module = folder / "src" / path
    module.parent.mkdir(parents=True, exist_ok=True)
    for package in module.relative_to(folder / "src").parents:
        if package != Path():
            (folder / "src" / package / "__init__.py").touch()
    module.write_text(text)
