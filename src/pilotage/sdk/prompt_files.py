"""Prompts in files: what they look like, where they came from, and what importing them changes.

docs/how-to/prompts.md describes the formats.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import yaml

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.core.prompts import PromptContent, encode_content, hash_content, read_content
from pilotage.core.semver import SemVer, parse_semver
from pilotage.kit.git import Checkout, find_checkout
from pilotage.sdk.control import ControlClient

SUFFIXES = (".prompt.yaml", ".prompt.yml", ".prompt.json", ".prompt.md")
MOST_BYTES = 512 * 1024  # of one file
_ROLE = re.compile(r"<!--[ \t]*(system|user|assistant)[ \t]*-->[ \t]*")
_FENCE = "---"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFile:
    """A version of a prompt as a file has it; without ``commit``, the file is not as committed."""

    name: str
    version: SemVer
    content: PromptContent
    path: str
    repository: str
    commit: str

    @property
    def ref(self) -> str:
        """The version as calls write it."""
        return f"{self.name}@{self.version}"

    def make_body(self) -> dict[str, Any]:
        """Return the request that makes the version."""
        said: dict[str, Any] = msgspec.json.decode(encode_content(self.content))
        provenance = {"repository": self.repository, "commit": self.commit, "path": self.path}
        return {"version": str(self.version), "provenance": provenance, **said}


class Imported(NamedTuple):
    """What becomes, or became, of a file."""

    file: PromptFile
    is_new: bool


class _Source(NamedTuple):
    path: str
    content: bytes
    commit: str


def read_prompt_files(path: Path, ref: str = "") -> list[PromptFile]:
    """Return the prompts in a folder and those below it, or in one file.

    With a ``ref`` they are read from that commit of the checkout, else from the files as they lie
    there. Raises ``invalid_request``, one line that names the file, for the first that is wrong.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise PilotageError("invalid_request", f"{path} does not exist.", param="path")
    checkout = find_checkout(folder, ref or "HEAD")
    if ref and checkout is None:
        raise PilotageError("invalid_request", f"{path} is in no git checkout.", param="ref")
    if ref and checkout is not None:
        sources = list(_read_commit(checkout, path))
    else:
        sources = list(_read_folder(path, checkout))
    repository = checkout.repository if checkout else ""
    files: dict[tuple[str, SemVer], PromptFile] = {}
    for source in sources:
        file = _read_file(source, repository)
        twin = files.setdefault((file.name, file.version), file)
        if twin is not file:
            raise _wrong(source.path, f"{file.ref} is in {twin.path} already")
    if not files:
        raise PilotageError(
            "invalid_request",
            f"There is no prompt in {path}.",
            hint=f"Their files end in {', '.join(SUFFIXES)}.",
            param="path",
        )
    return sorted(files.values(), key=lambda file: (file.name, file.version))


async def import_prompts(
    control: ControlClient, files: Sequence[PromptFile], *, is_dry: bool = False
) -> list[Imported]:
    """Make what is not there yet; return what became of each file.

    Everything is compared before anything is made. Raises ``already_exists``, naming the file, for
    a version that is there and says something else.
    """
    known = set()
    planned: list[Imported] = []
    for name in dict.fromkeys(file.name for file in files):
        mine = [file for file in files if file.name == name]
        there: dict[SemVer, str] = {}
        if await control.find(f"/prompts/{quote(name)}") is not None:
            known.add(name)
            listed = control.list(f"/prompts/{quote(name)}/versions")
            there = {parse_semver(item["version"]): item["sha256"] async for item in listed}
        planned += [Imported(file, _is_new(file, there)) for file in mine]
    for file, is_new in planned:
        if is_dry or not is_new:
            continue
        if file.name not in known:
            await control.post("/prompts", {"name": file.name})
            known.add(file.name)
        await _create(control, file)
    return planned


def _is_new(file: PromptFile, there: dict[SemVer, str]) -> bool:
    sha256 = there.get(file.version)
    if sha256 is None or sha256 == hash_content(file.content):
        return sha256 is None
    raise PilotageError(
        "already_exists",
        f"{file.path}: {file.ref} is there already and says something else.",
        hint="Versions never change: give it a higher version.",
        param="version",
    )


async def _create(control: ControlClient, file: PromptFile) -> None:
    try:
        await control.post(f"/prompts/{quote(file.name)}/versions", file.make_body())
    except PilotageError as refused:
        raise PilotageError(
            refused.code, f"{file.path}: {refused.detail}", hint=refused.hint, param=refused.param
        ) from None


# from where


def _read_folder(path: Path, checkout: Checkout | None) -> Iterator[_Source]:
    """Yield the files as they are; the commit is said only of those that are as committed."""
    committed = {} if checkout is None else {b.path: b for b in checkout.list_files(path)}
    root = (checkout.root if checkout else path if path.is_dir() else path.parent).resolve()
    found = sorted(path.rglob("*.prompt.*")) if path.is_dir() else [path]
    for file in found:
        if not file.name.endswith(SUFFIXES):
            continue
        real = file.resolve()
        if not real.is_file() or not real.is_relative_to(root):
            raise _wrong(str(file), "it is no file of this folder")
        inside = real.relative_to(root).as_posix()
        if real.stat().st_size > MOST_BYTES:
            raise _wrong(inside, f"it has more than {MOST_BYTES} bytes")
        content = real.read_bytes()
        blob = committed.get(inside)
        is_same = checkout is not None and blob is not None and checkout.read(blob) == content
        yield _Source(inside, content, checkout.commit if checkout and is_same else "")


def _read_commit(checkout: Checkout, path: Path) -> Iterator[_Source]:
    for blob in checkout.list_files(path):
        if blob.path.endswith(SUFFIXES):
            content = checkout.read(blob)
            if len(content) > MOST_BYTES:
                raise _wrong(blob.path, f"it has more than {MOST_BYTES} bytes")
            yield _Source(blob.path, content, checkout.commit)


# what is in them


def _read_file(source: _Source, repository: str) -> PromptFile:
    suffix = next(end for end in SUFFIXES if source.path.endswith(end))
    default = source.path.rpartition("/")[2].removesuffix(suffix)
    try:
        given = _parse(source.content.decode("utf-8-sig"), suffix)
        name, version = given.pop("name", default), given.pop("version", None)
        if not isinstance(name, str) or not isinstance(version, str):
            raise _wrong(source.path, 'it needs a version, as text: version: "1.0.0"')
        return PromptFile(
            name=check_name(name),
            version=parse_semver(version),
            content=read_content(given),
            path=source.path,
            repository=repository,
            commit=source.commit,
        )
    except UnicodeDecodeError:
        raise _wrong(source.path, "it is not text in UTF-8") from None
    except ValueError as wrong:
        raise _wrong(source.path, str(wrong)) from None
    except PilotageError as wrong:
        detail = wrong.detail.removeprefix(f"{source.path}: ").rstrip(".")
        raise _wrong(source.path, detail, wrong.hint) from None


def _parse(text: str, suffix: str) -> dict[str, Any]:
    if suffix == ".prompt.md":
        return _parse_markdown(text)
    if suffix == ".prompt.json":
        try:
            given = msgspec.json.decode(text)
        except msgspec.DecodeError as broken:
            raise ValueError(f"it is not JSON: {broken}") from None
    else:
        given = _parse_yaml(text)
    return _expect_fields(given)


def _parse_markdown(text: str) -> dict[str, Any]:
    """Read front matter between two lines of ``---``, then messages, each behind its role."""
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != _FENCE or _FENCE not in lines[1:]:
        raise ValueError("it does not begin with fields between two lines of ---")
    end = lines.index(_FENCE, 1)
    given = _expect_fields(_parse_yaml("\n".join(lines[1:end])))
    messages: list[dict[str, str]] = []
    body: list[str] = []
    role = ""
    for line in [*lines[end + 1 :], "<!-- user -->"]:
        marked = _ROLE.fullmatch(line)
        if marked is None:
            body.append(line)
            continue
        if role:
            messages.append({"role": role, "content": _trim(body)})
        elif "".join(body).strip():
            given["text"] = _trim(body)
        role, body = marked[1], []
    if "text" in given and messages:
        raise ValueError("there are words before the first role, such as <!-- user -->")
    return given if "text" in given else {**given, "messages": messages}


def _trim(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip("\n")


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which can make a small file say more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name), which is not read")
        return super().compose_node(parent, index)


def _parse_yaml(text: str) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that refuses more
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"it is not YAML{where}: {getattr(wrong, 'problem', wrong)}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _expect_fields(given: object) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError("it holds no fields such as version and messages")
    return given


def _wrong(path: str, why: str, hint: str = "") -> PilotageError:
    return PilotageError("invalid_request", f"{path}: {why}.", hint=hint, param="path")
