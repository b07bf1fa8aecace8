"""Kinds of the registry: models and their versions, prompts."""

from typing import Any

import msgspec

from pilotage.cli.objects.kinds.base import Object, list_given
from pilotage.core.names import check_name
from pilotage.core.prompts import read_content
from pilotage.core.semver import parse_semver

SAID = ("description", "display_name", "tags", "custom_metadata")  # of a version, at any time
HOSTED = ("base_model", "artifact_uri")  # either says what others host


class ModelObject(Object, frozen=True):
    """A model; what is left out stays as it is."""

    name: str
    description: str | None = None


class VersionObject(Object, frozen=True):
    """A version: of a file beside the document, of packaged weights, or of a model others host."""

    model: str
    version: str
    file: str | None = None
    package: str | None = None
    base_model: str | None = None
    artifact_uri: str | None = None
    serving_container_uri: str | None = None
    parent: str | None = None
    license: str | None = None
    context_tokens: int | None = None
    description: str | None = None
    display_name: str | None = None
    tags: list[str] | None = None
    custom_metadata: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """``MODEL@VERSION``."""
        return f"{self.model}@{self.version}"

    @property
    def body(self) -> dict[str, Any]:
        """How the API is asked for it, without its file."""
        return list_given(self, "project", "model", "file", "package")

    @property
    def said(self) -> dict[str, Any]:
        """What it says that may change later."""
        return {name: value for name, value in self.body.items() if name in SAID}

    @property
    def fixed(self) -> dict[str, Any]:
        """What it says that never changes, as the API shows it; a parent is shown by id."""
        return {
            name: value
            for name, value in self.body.items()
            if name not in SAID and name not in {"version", "parent"}
        }

    def check(self) -> None:
        """Check the names and that it is made of exactly one thing."""
        check_name(self.model, "model")
        parse_semver(self.version)
        is_hosted = any(getattr(self, name) for name in HOSTED)
        if self.file is not None and self.package is not None:
            raise ValueError("file: name either a file or a package")
        if self.file is None and self.package is None and not is_hosted:
            raise ValueError("file: name a file, a package, or what others host (base_model)")
        if self.package is not None and set(self.body) - {"version"}:
            raise ValueError("package: everything else that is said of it comes with it")


class PromptObject(Object, frozen=True):
    """A version of a prompt, in the document or in a prompt file beside it, and its labels."""

    name: str
    version: str
    file: str | None = None
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    variables: list[dict[str, Any]] | None = None
    response_schema: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    description: str | None = None
    labels: list[str] = msgspec.field(default_factory=list)

    @property
    def title(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def content(self) -> dict[str, Any]:
        """What it says, without a file."""
        return list_given(self, "project", "name", "version", "file", "labels")

    def check(self) -> None:
        """Check the names and that it says something in exactly one place."""
        check_name(self.name)
        parse_semver(self.version)
        for label in self.labels:
            check_name(label, "labels")
        if (self.file is None) == (not self.content):
            raise ValueError("text: it is in a file, or has text or messages")
        if self.file is None:
            read_content(self.content)
