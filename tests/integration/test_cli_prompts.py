"""Prompts by command, and from files of a git checkout that is not trusted."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from command_line import CommandLine, Said
from pilotage.core.errors import PilotageError
from pilotage.kit import git
from pilotage.sdk.prompt_files import MOST_BYTES, read_prompt_files

LETTER = """\
---
version: "1.0.0"
description: A letter.
variables:
  - {name: tone, type: enum, values: [kind, stern], default: kind}
  - {name: name}
parameters: {temperature: 0.2}
---
<!-- system -->
Write a {{ tone }} letter.

<!-- user -->

To {{ name }}:
# not a role
"""
COUNT = """\
version: "2.1.0"
text: "Count to {{ n }}."
variables: [{name: n, type: number}]
"""
HELLO = {"name": "hello", "version": "1.0.0", "text": "Hello."}


class Prompts:
    """``pilotage prompts`` in a project of its own."""

    def __init__(self, command_line: CommandLine, project: str) -> None:
        self._run = command_line
        self._project = ("--project", project)
        self.folder = command_line.folder

    def __call__(self, *words: str) -> Said:
        """Run a command."""
        return self._run("prompts", *words, *self._project)

    def ok(self, *words: str) -> Said:
        """Run a command that must succeed."""
        return self._run.ok("prompts", *words, *self._project)

    def json(self, *words: str) -> Any:  # noqa: ANN401 - JSON of any kind
        """Run a command that must succeed and return what it wrote as JSON."""
        return self._run.json("prompts", *words, *self._project)


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("prompts"))


@pytest.fixture
def pilotage(command_line: CommandLine, tmp_path: Path) -> Prompts:
    """Return the commands in a new project; they run in the test's own folder."""
    project = tmp_path.name.lower().replace("_", "-")[-40:].strip("-.")
    command_line.folder = tmp_path
    command_line.ok("projects", "create", project)
    return Prompts(command_line, project)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "letter.prompt.md").write_text(LETTER)
    (folder / "prompts" / "count.prompt.yaml").write_text(COUNT)
    (folder / "prompts" / "README.md").write_text("no prompt")
    (folder / "other.prompt.json").write_text(json.dumps(HELLO))
    run_git(folder, "init", "-q", "-b", "main")
    run_git(folder, "remote", "add", "origin", "https://user:secret@git.example/prompts.git")
    commit(folder)
    return folder


def run_git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *author, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path) -> str:
    run_git(folder, "add", ".")
    run_git(folder, "commit", "-q", "-m", "x")
    return run_git(folder, "rev-parse", "HEAD")


# by command


def test_a_prompt_is_made_released_compared_and_deleted(pilotage: Prompts) -> None:
    made = pilotage.ok("create", "greeting", "--text", "Hi {{ name }}")
    pilotage.ok("create", "greeting", "--version", "1.1.0", "--text", "Hello {{ name }}")
    tagged = pilotage.ok("tag", "greeting@1.0.0", "production")
    moved = pilotage.ok("tag", "greeting@1.1.0", "production", "--reason", "kinder")
    copied = pilotage.ok("tag", "greeting@production", "latest")
    rendered = pilotage.ok("render", "greeting@production", "--set", "name=Ada")
    differs = pilotage.ok("diff", "greeting@1.0.0", "production").out.splitlines()
    same = pilotage.ok("diff", "greeting@latest", "production")
    listed = pilotage.ok("list").out.splitlines()
    shown = pilotage.json("show", "greeting")
    version = pilotage.ok("show", "greeting@production").out
    kept = pilotage("delete", "greeting@1.1.0")
    pilotage.ok("untag", "greeting", "latest")
    pilotage.ok("untag", "greeting", "production")
    deleted = pilotage.ok("delete", "greeting@1.1.0")
    again = pilotage("create", "greeting", "--version", "1.1.0", "--text", "x")

    assert made.out.startswith("greeting@1.0.0 is created.")
    assert tagged.out == "greeting@production is 1.0.0 now.\n"
    assert moved.out == "greeting@production is 1.1.0 now. It was 1.0.0.\n"
    assert copied.out == "greeting@latest is 1.1.0 now.\n"
    assert (rendered.out, rendered.err) == ("[user]\nHello Ada\n", "greeting@1.1.0\n")
    assert {"-Hi {{ name }}", "+Hello {{ name }}"} <= set(differs)
    assert same.out == "greeting@1.1.0 and greeting@1.1.0 say the same.\n"
    assert listed[1].split()[:2] == ["greeting", "1.1.0"]
    assert [item["version"] for item in shown["versions"]] == ["1.0.0", "1.1.0"]
    assert [(item["label"], item["rev"]) for item in shown["labels"]] == [
        ("latest", 1),
        ("production", 2),
    ]
    assert "variable name  string, required" in version
    assert version.endswith("[text]\nHello {{ name }}\n")
    assert (kept.code, "released as latest, production" in kept.err) == (1, True)
    assert deleted.out == "greeting@1.1.0 is deleted.\n"
    assert (again.code, "There is, or was, a version greeting@1.1.0" in again.err) == (1, True)


def test_values_have_the_kinds_of_their_variables(pilotage: Prompts) -> None:
    file = pilotage.folder / "kinds.prompt.yaml"
    file.write_text(
        'version: "1.0.0"\ntext: "{{ n }} {{ b }} {{ s }}"\nvariables:\n'
        "  - {name: n, type: number}\n  - {name: b, type: boolean}\n  - {name: s}\n"
    )
    pilotage.ok("create", "kinds", "--file", str(file))
    words = ("render", "kinds@1.0.0", "--set", "b=true", "--set", "s=7")

    assert pilotage.json(*words, "--set", "n=1.5") == {
        "ref": "kinds@1.0.0",
        "messages": [{"role": "user", "content": "1.5 true 7"}],
    }
    refused = pilotage(*words, "--set", "n=many")
    assert (refused.code, "must be a number" in refused.err) == (1, True)


REFUSALS = {
    "create a --text x --file b.prompt.md": "either --text or --file",
    "create a": "either --text or --file",
    "create a --text {{": "text: line 1",
    "create a --version 1.0 --text x": "not a semantic version",
    "create A --text x": "is not a name",
    "show nothing": "There is no prompt 'nothing'",
    "tag nothing production": "does not say which version",
    "render nothing@1.0.0 --set x": "write NAME=VALUE",
    "import nowhere": "nowhere does not exist",
    "import .": "There is no prompt in .",
    "import . --ref main": "is in no git checkout",
}


def test_a_refusal_is_one_line(pilotage: Prompts) -> None:
    for words, said in REFUSALS.items():
        refused = pilotage(*words.split())

        assert refused.code in (1, 2), words
        assert said in refused.err
        assert refused.out == ""


# from files


def test_a_checkout_is_imported_with_its_commit_and_only_once(
    pilotage: Prompts, checkout: Path
) -> None:
    head = run_git(checkout, "rev-parse", "HEAD")
    dry = pilotage.json("import", "checkout", "--dry-run")
    nothing = pilotage.json("list")
    done = pilotage.json("import", "checkout")
    again = pilotage.json("import", "checkout")
    letter = pilotage.json("show", "letter@1.0.0")

    assert nothing == []
    assert [(item["ref"], item["result"]) for item in dry] == [
        ("count@2.1.0", "would be made"),
        ("hello@1.0.0", "would be made"),
        ("letter@1.0.0", "would be made"),
    ]
    assert {item["result"] for item in done} == {"made"}
    assert {item["result"] for item in again} == {"there already"}
    assert letter["provenance"] == {
        "repository": "https://git.example/prompts.git",
        "commit": head,
        "path": "prompts/letter.prompt.md",
    }
    assert letter["messages"] == [
        {"role": "system", "content": "Write a {{ tone }} letter."},
        {"role": "user", "content": "To {{ name }}:\n# not a role"},
    ]
    assert letter["parameters"]["temperature"] == 0.2


def test_a_version_that_says_something_else_stops_everything(
    pilotage: Prompts, checkout: Path
) -> None:
    pilotage.ok("import", "checkout/prompts/letter.prompt.md")
    (checkout / "prompts" / "letter.prompt.md").write_text(LETTER + "More.\n")

    refused = pilotage("import", "checkout")

    assert refused.code == 1
    assert "prompts/letter.prompt.md: letter@1.0.0 is there already" in refused.err
    assert "higher version" in refused.err
    assert [item["name"] for item in pilotage.json("list")] == ["letter"]


def test_what_is_not_as_committed_claims_no_commit(pilotage: Prompts, checkout: Path) -> None:
    first = run_git(checkout, "rev-parse", "HEAD")
    (checkout / "other.prompt.json").write_text(json.dumps(HELLO | {"version": "1.1.0"}))

    now = {item["ref"]: item for item in pilotage.json("import", "checkout")}
    then = pilotage.json("import", "checkout", "--ref", "main")

    assert now["hello@1.1.0"]["commit"] == ""
    assert now["letter@1.0.0"]["commit"] == first
    assert [(item["ref"], item["commit"], item["result"]) for item in then] == [
        ("count@2.1.0", first, "there already"),
        ("hello@1.0.0", first, "made"),
        ("letter@1.0.0", first, "there already"),
    ]
    refused = pilotage("import", "checkout", "--ref", "--upload-pack=x")
    assert "has no commit '--upload-pack=x'" in refused.err


def test_a_folder_without_git_has_no_provenance_but_its_path(pilotage: Prompts) -> None:
    (pilotage.folder / "plain").mkdir()
    (pilotage.folder / "plain" / "hello.prompt.json").write_text(json.dumps(HELLO))

    pilotage.ok("import", "plain")

    assert pilotage.json("show", "hello@1.0.0")["provenance"] == {
        "repository": "",
        "commit": "",
        "path": "hello.prompt.json",
    }


def test_nothing_that_a_checkout_says_is_run(checkout: Path) -> None:
    proof = checkout / "proof"
    trap = checkout / "trap.sh"
    trap.write_text(f"#!/bin/sh\necho run >> {proof}\ncat\n")
    trap.chmod(0o755)
    for name in ("core.fsmonitor", "core.sshCommand", "core.pager", "filter.x.smudge",
                 "filter.x.clean", "diff.x.textconv", "alias.rev-parse"):  # fmt: skip
        run_git(checkout, "config", name, str(trap))
    run_git(checkout, "config", "core.hooksPath", str(checkout))
    for hook in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction"):
        (checkout / hook).symlink_to(trap)
    (checkout / ".gitattributes").write_text("* filter=x diff=x\n")

    files = read_prompt_files(checkout) + read_prompt_files(checkout, "main")

    assert len(files) == 6
    assert not proof.exists()


def test_a_checkout_of_another_user_is_read(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)

    assert len(read_prompt_files(checkout, "main")) == 3


def test_git_has_a_time_limit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "TIME_LIMIT_S", 0.0)

    with pytest.raises(PilotageError, match="took longer than 0 s"):
        read_prompt_files(checkout)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.prompt.yaml", "text: x", "it needs a version, as text"),
        ("a.prompt.yaml", "version: 1.0\ntext: x", "it needs a version, as text"),
        ("a.prompt.yaml", 'version: "1.0"\ntext: x', "not a semantic version"),
        ("a.prompt.yaml", 'version: "1.0.0"\ntext: "{{"', "text: line 1"),
        ("a.prompt.yaml", 'version: "1.0.0"\ncolour: x', "unknown field 'colour'"),
        ("a.prompt.yaml", "a: &a [x]\nb: [*a, *a]", "it has an alias"),
        ("a.prompt.yaml", "a: [", "it is not YAML, line 1"),
        ("a.prompt.yaml", "a: !!python/object:os.system x", "it is not YAML"),
        ("a.prompt.yaml", "[" * 600, "nested too deeply"),
        ("a.prompt.yaml", "- x", "it holds no fields"),
        ("a.prompt.yaml", b"\xff", "it is not text in UTF-8"),
        ("A.prompt.yaml", 'version: "1.0.0"\ntext: x', "'A' is not a name"),
        ("a.prompt.json", "{", "it is not JSON"),
        ("a.prompt.json", "7", "it holds no fields"),
        ("a.prompt.md", "Hello", "it does not begin with fields"),
        ("a.prompt.md", '---\nversion: "1.0.0"\n---\n', "either messages or a text"),
        ("a.prompt.md", '---\nversion: "1.0.0"\n---\nx\n<!-- user -->\ny', "before the first role"),
        ("a.prompt.md", " " * (MOST_BYTES + 1), "more than 524288 bytes"),
    ],
)
def test_a_file_that_is_wrong_is_named(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    write(tmp_path, name, content)

    with pytest.raises(PilotageError) as refused:
        read_prompt_files(tmp_path)

    assert refused.value.detail.startswith(f"{name}: ")
    assert said in refused.value.detail


def test_a_markdown_file_without_roles_is_a_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.prompt.md", '---\nversion: "1.0.0"\nname: b\n---\n\nHi {{ x }}\n\n')

    (file,) = read_prompt_files(path)

    assert (file.ref, file.content.text, file.path) == ("b@1.0.0", "Hi {{ x }}", "a.prompt.md")


def test_two_files_with_one_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.prompt.json", json.dumps(HELLO))
    write(tmp_path, "b.prompt.json", json.dumps(HELLO))

    with pytest.raises(PilotageError, match=r"b\.prompt\.json: hello@1\.0\.0 is in a\.prompt"):
        read_prompt_files(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "secret", json.dumps(HELLO))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.prompt.json").symlink_to(tmp_path / "secret")

    with pytest.raises(PilotageError, match="it is no file of this folder"):
        read_prompt_files(tmp_path / "in")
