"""The files that drive the tools: workflows, hooks, constraints, make."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHECKS = {
    "zizmor": ["zizmor", "--offline", "--quiet", "--persona=pedantic"],
    "actionlint": ["actionlint"],
    "schema": ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
}
PLANTED_IN_WORKFLOW = {
    "zizmor": ("@1af3b93b6815bc44a9784bd300feb67ff0d1eeb3", "@v6"),
    "actionlint": ("${{ matrix.python }}", "${{ matrix.pyton }}"),
    "schema": ("runs-on:", "runs_on:"),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_passes_its_linters(workflow: Path, check: str) -> None:
    checked = run_check(check, workflow)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("check", CHECKS)
def test_a_fault_in_a_workflow_is_found(check: str, tmp_path: Path) -> None:
    right, wrong = PLANTED_IN_WORKFLOW[check]
    planted = tmp_path / ".github" / "workflows" / "ci.yml"
    planted.parent.mkdir(parents=True)
    planted.write_text(WORKFLOWS[0].read_text().replace(right, wrong))

    assert run_check(check, planted).returncode != 0


def test_the_hooks_need_no_network() -> None:
    config = ROOT / ".pre-commit-config.yaml"
    validated = run([str(PROGRAMS / "pre-commit"), "validate-config", str(config)])

    assert validated.returncode == 0, validated.stdout
    assert re.findall(r"repo: (.*)", config.read_text()) == ["local"]
    assert set(re.findall(r"language: (.*)", config.read_text())) == {"system"}


def test_constraints_are_names_and_exact_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [
        line for line in lines[1:] if not re.fullmatch(r"[a-z0-9.-]+==[a-z0-9.!+-]+", line)
    ] == []


def test_constraints_fix_everything_that_the_development_extra_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["dev"]]]

    assert sorted(set(closure(wanted, extras)) - constrained()) == []


def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "constraints.txt").touch()
    old = tmp_path / "old python"
    old.write_text('#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\ntouch used\n')
    old.chmod(0o755)

    refused = run(["make", "setup", "PYTHON='./old python'"], cwd=tmp_path)

    assert refused.returncode != 0
    assert "needs Python 3.11 or newer" in refused.stderr
    assert not (tmp_path / "used").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_setup_works_below_a_folder_with_spaces_and_does_nothing_again(tmp_path: Path) -> None:
    checkout = tmp_path / "a folder with spaces"
    tracked = run(["git", "ls-files", "-z"], cwd=ROOT).stdout.split("\0")
    for name in filter(None, tracked):
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)

    first = run(["make", "setup"], cwd=checkout)
    again = run(["make", "setup"], cwd=checkout)

    assert first.returncode == 0, first.stdout + first.stderr
    assert "uv_pip.py install" in first.stdout
    assert again.stdout == "make: Nothing to be done for 'setup'.\n"
    shown = run([".venv/bin/python", "-c", "import pilotage; print(pilotage.__file__)"], checkout)
    assert Path(shown.stdout.strip()) == checkout / "src" / "pilotage" / "__init__.py"


def constrained() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if "==" in line}


def closure(wanted: list[Requirement], extras: dict[str, list[str]]) -> Iterator[str]:
    """Yield the names of requirements and of all that these require, as installed here."""
    seen: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name == "pilotage":
            own = [text for extra in requirement.extras for text in extras[extra]]
            wanted += [Requirement(text) for text in own]
        elif str(requirement) not in seen and applies(requirement):
            yield name
            wanted += [below for below in required_by(requirement) if str(below) not in seen]
        seen.add(str(requirement))


def required_by(requirement: Requirement) -> list[Requirement]:
    try:
        texts = requires(requirement.name) or []
    except PackageNotFoundError:
        return []
    below = [Requirement(text) for text in texts]
    return [one for one in below if applies(one, requirement.extras)]


def applies(requirement: Requirement, extras: set[str] | frozenset[str] = frozenset()) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def run_check(check: str, workflow: Path) -> subprocess.CompletedProcess[str]:
    program, *options = CHECKS[check]
    return run([str(PROGRAMS / program), *options, str(workflow)])


def run(command: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    return subprocess.run(
        command, cwd=cwd, env=inherited, capture_output=True, text=True, check=False
    )
