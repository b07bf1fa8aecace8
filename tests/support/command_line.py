"""The command line in this process: words in; exit code, standard output and standard error out."""

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.core import TyperGroup

from pilotage.cli.app import make_app
from pilotage.cli.main import main
from pilotage.registry.backends.packages import PACKAGED_WEIGHTS, PackagedWeights


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON of any kind
        """Standard output as JSON."""
        return json.loads(self.out)


class CommandLine:
    """``pilotage`` with its own data folder and working folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.environment = {
            "PILOTAGE_DATA_DIR": str(self.data),
            "PILOTAGE_GATEWAY_PORT": "0",
            "PILOTAGE_CONTROL_PORT": "0",
            **environment,
        }

    def __call__(self, *words: str, stdin: str = "") -> Said:
        """Run a command to its end."""
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        with self._around(stdin), redirect_stdout(out), redirect_stderr(err):
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code
        return Said(0 if code is None else int(str(code)), out.getvalue(), err.getvalue())

    def ok(self, *words: str, stdin: str = "") -> Said:
        """Run a command that must succeed."""
        said = self(*words, stdin=stdin)
        assert said.code == 0, f"{words}: {said}"
        return said

    def json(self, *words: str) -> Any:  # noqa: ANN401 - JSON of any kind
        """Run a command that must succeed with --json and return what it wrote."""
        return self.ok(*words, "--json").json

    @property
    def whole_environment(self) -> Mapping[str, str]:
        """The environment of a process that shall be this command line."""
        others = {name: value for name, value in os.environ.items() if "PILOTAGE_" not in name}
        return others | self.environment

    @contextmanager
    def _around(self, stdin: str) -> Iterator[None]:
        before, where, source = dict(os.environ), Path.cwd(), sys.stdin
        environment = self.whole_environment
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(self.folder)
        sys.stdin = io.StringIO(stdin)
        try:
            yield
        finally:
            sys.stdin = source
            os.chdir(where)
            os.environ.clear()
            os.environ.update(before)


def list_commands() -> dict[str, list[str]]:
    """Return every command and its options."""
    found: dict[str, list[str]] = {}

    def walk(group: TyperGroup, words: tuple[str, ...]) -> None:
        for name, entry in group.commands.items():
            if isinstance(entry, TyperGroup):
                walk(entry, (*words, name))
            else:
                options = [option for param in entry.params for option in param.opts]
                found[" ".join((*words, name))] = options

    root = typer.main.get_command(make_app())
    assert isinstance(root, TyperGroup)
    walk(root, ())
    return found


def provide_package(pilotage: CommandLine, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file the packaged weights ``smollm2``, fetched already."""
    content = gguf.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    weights = PackagedWeights(
        model="smollm2",
        version="1.0.0",
        description="A tiny model.",
        license="MIT",
        package="tiny",
        package_version="1",
        file="tiny/tiny.gguf",
        file_bytes=len(content),
        sha256=sha256,
    )
    monkeypatch.setitem(PACKAGED_WEIGHTS, "smollm2", weights)
    blob = pilotage.data / "blobs" / sha256[:2] / sha256
    blob.parent.mkdir(parents=True)
    shutil.copy(gguf, blob)
