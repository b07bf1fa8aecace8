"""What prompts are: names, their immutable versions, and the labels that point to versions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A named line of versions.

    A deleted one keeps its name for ever, because records of calls name it. ``changes`` counts what
    happens to it and below it: whoever changes anything there has seen all of it.
    """

    id: str
    rev: int
    project_id: str
    name: str
    description: str
    changes: int
    created_at_us: int
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a version was read from: a file, and the commit of the checkout that it was in.

    All empty for one that was typed in; without ``commit`` for a folder that git does not know.
    """

    repository: str = ""
    commit: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSummary:
    """A version without what it says."""

    id: str
    project_id: str
    prompt_id: str
    prompt: str
    version: str
    sha256: str
    description: str
    provenance: Provenance
    created_at_us: int
    created_by: str

    @property
    def ref(self) -> str:
        """The version as people and calls write it: ``NAME@VERSION``."""
        return f"{self.prompt}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVersion(PromptSummary):
    """An immutable version; ``content`` is the canonical JSON of what it says."""

    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLabel:
    """A name that points to a version, and can be made to point to another."""

    id: str
    rev: int
    project_id: str
    prompt_id: str
    label: str
    version_id: str
    version: str
    changed_at_us: int
    changed_by: str
