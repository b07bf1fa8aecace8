"""Slices keep to themselves and imports run in no circles; both checks catch a planted case."""

import subprocess
import sys
from pathlib import Path

import pytest

from import_graph import find_intrusions, find_knot, read_graph
from package_skeleton import ROOT, make_skeleton, plant

INTRUDERS = {
    "pilotage/rollouts/planted.py": "pilotage.registry.store",
    "pilotage/assurance/planted.py": "pilotage.endpoints.backends.local",
    "pilotage/cli/planted.py": "pilotage.audit.rules",
    "pilotage/publisher/planted.py": "pilotage.identity",
}
GUESTS = {
    "pilotage/rollouts/planted.py": "pilotage.registry.service",
    "pilotage/assurance/planted.py": "pilotage.endpoints.types",
    "pilotage/sdk/planted.py": "pilotage.monitoring.alerts.types",
    "pilotage/registry/planted.py": "pilotage.registry.store",
    "pilotage/runtime/planted.py": "pilotage.registry.store",
    "pilotage/server/planted.py": "pilotage.registry.http",
    "pilotage/migrations/planted.py": "pilotage.audit.store",
}


def test_a_slice_is_private_but_for_its_types_and_service() -> None:
    graph = read_graph()

    assert graph.modules
    assert find_intrusions(graph) == []


def test_imports_run_in_no_circles() -> None:
    assert find_knot(read_graph()) == []


@pytest.mark.parametrize("path", INTRUDERS)
def test_an_intrusion_is_found(path: str, tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path)
    imported = INTRUDERS[path]
    plant_module(skeleton, imported)
    plant(skeleton, path, f"import {imported}\n")

    importer = path.removesuffix(".py").replace("/", ".")
    assert ask(skeleton, "find_intrusions") == f"{importer} -> {imported}"


def test_a_guest_is_welcome(tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path)
    for path, imported in GUESTS.items():
        plant_module(skeleton, imported)
        plant(skeleton, path, f"import {imported}\n")

    assert ask(skeleton, "find_intrusions") == ""


def test_a_knot_is_found(tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path)
    plant(skeleton, "pilotage/core/one.py", "import pilotage.core.two\n")
    plant(skeleton, "pilotage/core/two.py", "import pilotage.core.three\n")
    plant(skeleton, "pilotage/core/three.py", "def late():\n    import pilotage.core.one\n")

    knot = ask(skeleton, "find_knot").split()

    assert set(knot) == {"pilotage.core.one", "pilotage.core.two", "pilotage.core.three"}


def test_an_import_for_annotations_makes_no_knot(tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path)
    later = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pilotage.core.two\n"
    plant(skeleton, "pilotage/core/one.py", later)
    plant(skeleton, "pilotage/core/two.py", "import pilotage.core.one\n")

    assert ask(skeleton, "find_knot") == ""


def plant_module(skeleton: Path, name: str) -> None:
    folder = name.replace(".", "/")
    is_package = (skeleton / "src" / folder).is_dir() or name.count(".") == 1
    plant(skeleton, f"{folder}/__init__.py" if is_package else f"{folder}.py", "")


def ask(skeleton: Path, question: str) -> str:
    paths = [str(skeleton / "src"), str(ROOT / "tests" / "support")]
    program = (
        f"import sys; sys.path[:0] = {paths!r}; import import_graph as g; "
        f"print(*g.{question}(g.read_graph()), sep='\\n')"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program], cwd=skeleton, capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()
