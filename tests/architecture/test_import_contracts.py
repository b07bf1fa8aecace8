"""The import contracts of pyproject.toml hold, and each catches a planted violation."""

import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from package_skeleton import ROOT, make_skeleton, plant


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A module with an import that a contract forbids."""

    contract: str
    path: str
    imported: str

    @property
    def importer(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".")


VIOLATIONS = [
    Violation(contract="floors", path="pilotage/core/money.py", imported="pilotage.kit.clock"),
    Violation(
        contract="floors", path="pilotage/audit/rules.py", imported="pilotage.identity.types"
    ),
    Violation(contract="floors", path="pilotage/sdk/planted.py", imported="pilotage.cli.main"),
    Violation(
        contract="floors", path="pilotage/rollouts/planted.py", imported="pilotage.gateway.call"
    ),
    Violation(
        contract="gateway-alone",
        path="pilotage/gateway/planted.py",
        imported="pilotage.registry.types",
    ),
    Violation(contract="gateway-alone", path="pilotage/gateway/planted.py", imported="sqlalchemy"),
    Violation(contract="gateway-alone", path="pilotage/gateway/planted.py", imported="httpx"),
    Violation(contract="pure", path="pilotage/core/planted.py", imported="asyncio"),
    Violation(contract="pure", path="pilotage/registry/rules.py", imported="pilotage.kit.db"),
    Violation(contract="pure", path="pilotage/registry/types.py", imported="pydantic"),
    Violation(
        contract="google-in-one-room", path="pilotage/registry/planted.py", imported="google"
    ),
    Violation(contract="torch-in-one-room", path="pilotage/tuning/planted.py", imported="torch"),
    Violation(contract="web-only-at-doors", path="pilotage/kit/planted.py", imported="fastapi"),
    Violation(
        contract="web-only-at-doors", path="pilotage/registry/store.py", imported="starlette"
    ),
]
ALLOWED = {
    "pilotage/kit/gcp/storage.py": "import google\n",
    "pilotage/tuning/trainers/lora.py": "import torch\n",
    "pilotage/registry/store.py": "import sqlalchemy\nimport pilotage.identity.types\n",
    "pilotage/identity/types.py": "",
    "pilotage/server/app.py": "import fastapi\n",
}


def test_the_contracts_hold() -> None:
    checked = lint_imports(ROOT)

    assert checked.returncode == 0, checked.stdout


def test_a_layer_that_is_not_declared_is_found(tmp_path: Path) -> None:
    plant(make_skeleton(tmp_path), "pilotage/extras/planted.py", "")

    checked = lint_imports(tmp_path, "floors")

    assert checked.returncode == 1
    assert "extras" in checked.stdout


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda v: f"{v.importer} -> {v.imported}")
def test_a_violation_is_found(violation: Violation, tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path)
    if violation.imported.startswith("pilotage."):
        plant(skeleton, violation.imported.replace(".", "/") + ".py", "")
    plant(skeleton, violation.path, f"import {violation.imported}\n")

    checked = lint_imports(skeleton, violation.contract)

    assert checked.returncode == 1
    assert "0 kept, 1 broken" in checked.stdout
    assert f"{violation.importer} -> {violation.imported} (l.1)" in checked.stdout


def test_what_has_its_place_is_allowed_there(tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path)
    for path, text in ALLOWED.items():
        plant(skeleton, path, text)

    checked = lint_imports(skeleton)

    assert checked.returncode == 0, checked.stdout


def test_every_contract_is_proved() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

    assert {contract["id"] for contract in settings["contracts"]} == {
        violation.contract for violation in VIOLATIONS
    }


def lint_imports(root: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(root / 'src')!r}); "
        "from importlinter.cli import lint_imports_command as command; command()"
    )
    limits = [f"--contract={contract}" for contract in contracts]
    return subprocess.run(
        [sys.executable, "-c", program, "--no-logo", "--no-cache", *limits],
        cwd=root,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
