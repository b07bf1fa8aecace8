"""What ``pilotage apply`` reads: YAML documents, each one object, checked before anything happens.

The reference is docs/reference/objects.md.
"""

import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from pilotage.cli.objects.kinds import KINDS, Object
from pilotage.core.errors import PilotageError

DEEPEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object and where it is written; ``folder`` is what its file names are relative to."""

    kind: str
    content: Object
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


def _explain(message: str) -> str:
    """Return what msgspec says, with the field first."""
    problem, _, where = message.partition(" - at `$.")
    problem = problem.replace("`", "'").removeprefix("Object ").strip()
    where = where.rstrip("`").replace("[...]", "")
    return f"{where}: {problem}" if where else problem
