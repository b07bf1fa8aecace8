"""What ``pilotage apply`` reads: YAML documents, each one object, checked before anything happens.

The reference is docs/reference/objects.md.
"""

import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import yaml

from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.core.money import parse_usd
from pilotage.core.names import check_alias, check_name
from pilotage.core.semver import parse_semver
from pilotage.kit.clock import parse_time

DEEPEST = 8
CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning")


class _Object(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object; without ``project`` it belongs to the command's."""

    project: str | None = None

    @property
    def title(self) -> str:
        """How it is called among its kind."""
        return str(getattr(self, "name", ""))

    def check(self) -> None:
        """Raise ValueError or ``invalid_request`` if its values cannot be right together."""
        check_name(self.title)


class ProjectObject(_Object, frozen=True):
    """A project."""

    name: str

    def check(self) -> None:
        """Check the name; a project is in no project."""
        check_name(self.name)
        if self.project is not None:
            raise ValueError("project: a project belongs to none")


class TenantObject(_Object, frozen=True):
    """A tenant."""

    name: str


class ModelObject(_Object, frozen=True):
    """A model; what is left out stays as it is."""

    name: str
    description: str | None = None


class VersionObject(_Object, frozen=True):
    """A version: of a file beside the document, or of packaged weights."""

    model: str
    version: str
    file: str | None = None
    package: str | None = None
    license: str | None = None
    description: str | None = None

    @property
    def title(self) -> str:
        """``MODEL@VERSION``."""
        return f"{self.model}@{self.version}"

    def check(self) -> None:
        """Check the names and that it is made of exactly one thing."""
        check_name(self.model, "model")
        parse_semver(self.version)
        if (self.file is None) == (self.package is None):
            raise ValueError("file: name either a file or a package")
        if self.package is not None and (self.license or self.description):
            raise ValueError("package: its licence and description come with it")


class PriceObject(_Object, frozen=True, rename={"valid_from": "from"}):
    """A price of MODEL or MODEL@VERSION."""

    model: str
    input: str | None = None
    output: str | None = None
    cache_read: str | None = None
    cache_write: str | None = None
    reasoning: str | None = None
    free: bool = False
    valid_from: str | None = None

    @property
    def title(self) -> str:
        """What it is for."""
        return self.model

    @property
    def rates(self) -> dict[str, Decimal]:
        """All five rates, the ones left out as the API fills them in."""
        given = self.input or "0", self.output or "0"
        defaults = dict(zip(CLASSES, (*given, given[0], given[0], given[1]), strict=True))
        return {name: Decimal(getattr(self, name) or defaults[name]) for name in CLASSES}

    def check(self) -> None:
        """Check the rates and the time."""
        name, is_version, version = self.model.partition("@")
        check_name(name, "model")
        if is_version:
            parse_semver(version)
        for part in CLASSES:
            text = getattr(self, part)
            if text is not None:
                _check_rate(part, text)
        if not self.free and (self.input is None or self.output is None):
            raise ValueError("input: a price has input and output, or is free")
        if self.free == any(self.rates.values()):
            raise ValueError("free: true goes with rates of zero, and only with them")
        if self.valid_from is not None:
            parse_time(self.valid_from)


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment of an endpoint and its percentage of the traffic."""

    model: str
    share: Decimal | None = None


class EndpointObject(_Object, frozen=True):
    """An endpoint; what is left out stays as it is."""

    name: str
    description: str | None = None
    max_output_tokens: int | None = None
    deployments: list[Share] | None = None

    @property
    def shares(self) -> dict[str, Decimal]:
        """Percentages by MODEL@VERSION; a deployment alone has all."""
        listed = self.deployments or []
        whole = Decimal(100) if len(listed) == 1 else Decimal(0)
        return {item.model: whole if item.share is None else item.share for item in listed}

    def check(self) -> None:
        """Check names and shares."""
        check_alias(self.name)
        if self.deployments is None:
            return
        for item in self.deployments:
            name, is_version, version = item.model.partition("@")
            if not is_version:
                raise ValueError(
                    f"deployments: {item.model!r} names no version, write NAME@VERSION"
                )
            check_name(name, "deployments")
            parse_semver(version)
            if item.share is None and len(self.deployments) > 1:
                raise ValueError(f"deployments: {item.model} has no share")
            if item.share is not None and not (item.share.is_finite() and 0 <= item.share <= 100):
                raise ValueError(f"deployments: {item.share} % is no share")
        if len(self.shares) < len(self.deployments):
            raise ValueError("deployments: a version is named twice")
        if self.deployments and sum(self.shares.values()) != 100:
            raise ValueError(f"deployments: the shares sum to {sum(self.shares.values())}, not 100")


class KeyObject(_Object, frozen=True):
    """A key of a tenant; its text is shown when it is made."""

    name: str
    tenant: str = "default"
    expires: str | None = None

    @property
    def title(self) -> str:
        """Whose key, and which."""
        return f"{self.tenant}/{self.name}"

    def check(self) -> None:
        """Check the names and how long it lives."""
        check_name(self.name)
        check_name(self.tenant, "tenant")
        if self.expires is not None:
            parse_duration_us(self.expires)


KINDS: dict[str, type[_Object]] = {  # in the order in which they are applied
    "Project": ProjectObject,
    "Tenant": TenantObject,
    "Model": ModelObject,
    "ModelVersion": VersionObject,
    "Price": PriceObject,
    "Endpoint": EndpointObject,
    "Key": KeyObject,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object and where it is written; ``folder`` is what its file names are relative to."""

    kind: str
    content: _Object
    project: str
    place: str
    folder: Path

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two documents may share."""
        since = getattr(self.content, "valid_from", None) or ""
        return self.kind, self.project, f"{self.content.title} {since}".strip()

    def refuse(self, problem: str, hint: str = "") -> PilotageError:
        """Return the error that says what is wrong with it, and where."""
        detail = f"{self.place}: {self.kind} {self.content.title}: {problem}"
        return PilotageError("invalid_request", detail.rstrip(".") + ".", hint=hint)


def read_documents(sources: Sequence[str], project: str) -> list[Document]:
    """Return the documents of files, folders (their ``*.yaml`` and ``*.yml``) and ``-``.

    They come in the order in which they can be applied. Raises ``invalid_request``, one line that
    names the file, the document and the field.
    """
    documents = [
        document
        for source in sources
        for name, text, folder in _read_sources(source)
        for document in _read_text(name, text, folder, project)
    ]
    seen: dict[tuple[str, str, str], Document] = {}
    for document in documents:
        if document.key in seen:
            raise document.refuse(f"it is in {seen[document.key].place} already")
        seen[document.key] = document
    if not documents:
        raise PilotageError(
            "invalid_request",
            f"There is no document in {', '.join(sources)}.",
            hint="See docs/reference/objects.md for what one looks like.",
        )
    order = list(KINDS)
    return sorted(documents, key=lambda document: order.index(document.kind))


def _read_sources(source: str) -> Iterator[tuple[str, str, Path]]:
    if source == "-":
        yield "stdin", sys.stdin.read(), Path()
        return
    path = Path(source)
    files = [path]
    if path.is_dir():
        files = sorted(item for item in path.iterdir() if item.suffix in {".yaml", ".yml"})
    for file in files:
        try:
            yield str(file), file.read_text(), file.parent
        except (OSError, UnicodeDecodeError) as failed:
            reason = getattr(failed, "strerror", None) or "it is not text"
            raise PilotageError("invalid_request", f"{file} cannot be read: {reason}.") from None


def _read_text(name: str, text: str, folder: Path, project: str) -> Iterator[Document]:
    try:
        nodes = [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(wrong, "problem", None) or "it cannot be read"
        raise PilotageError(
            "invalid_request", f"{name}{where}: this is not YAML: {problem}."
        ) from None
    for number, node in enumerate(nodes, 1):
        place = f"{name}, document {number} (line {node.start_mark.line + 1})"
        if not (isinstance(node, yaml.ScalarNode) and node.value == ""):  # nothing but a comment
            yield _read_document(node, place, folder, project)


def _read_document(node: yaml.Node, place: str, folder: Path, project: str) -> Document:
    def refuse(problem: str, hint: str = "") -> PilotageError:
        return PilotageError("invalid_request", f"{place}: {problem}.", hint=hint)

    try:
        content = _plain(node)
    except ValueError as wrong:
        raise refuse(str(wrong)) from None
    if not isinstance(content, dict) or "kind" not in content:
        raise refuse("there is no kind", f"Begin with one of: {', '.join(KINDS)}.")
    kind = content.pop("kind")
    shape = KINDS.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise refuse(f"{kind!r} is no kind", f"There are: {', '.join(KINDS)}.")
    known = [field.encode_name for field in msgspec.structs.fields(shape)]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
            raise refuse(f"{kind}: {name} is not a field", hint)
    try:
        checked = msgspec.convert(content, shape, strict=False)
        checked.check()
    except msgspec.ValidationError as wrong:
        raise refuse(f"{kind}: {_explain(str(wrong))}") from None
    except ValueError as wrong:
        raise refuse(f"{kind}: {wrong}") from None
    except PilotageError as wrong:
        raise refuse(f"{kind}: {wrong.param}: {wrong.detail.rstrip('.')}", wrong.hint) from None
    return Document(
        kind=kind,
        content=checked,
        project=checked.project or project,
        place=place,
        folder=folder,
    )


def _plain(node: yaml.Node, depth: int = 0) -> Any:  # noqa: ANN401 - YAML holds anything
    """Return a node as dicts, lists and text: 1.0 stays a version and 0.10 a price."""
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag.endswith(":null") else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, depth + 1) for item in node.value]
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            raise ValueError(f"line {key.start_mark.line + 1}: {name} is there twice")
        found[name] = _plain(value, depth + 1)
    return found


def _check_rate(part: str, text: str) -> None:
    if not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"{part}: {text!r} is no rate, write USD per million tokens such as 0.15")
    try:
        parse_usd(text)
    except ValueError as wrong:
        raise ValueError(f"{part}: {wrong}") from None


def _explain(message: str) -> str:
    """Return what msgspec says, with the field first."""
    problem, _, where = message.partition(" - at `$.")
    problem = problem.replace("`", "'").removeprefix("Object ").strip()
    where = where.rstrip("`").replace("[...]", "")
    return f"{where}: {problem}" if where else problem
