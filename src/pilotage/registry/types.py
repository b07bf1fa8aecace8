"""What the registry is: models, their immutable versions, and the files these are made of."""

from dataclasses import dataclass

FORMAT_GGUF = "gguf"
SOURCE_MANUAL = "manual"
SOURCE_PACKAGE = "package"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named line of versions; deleting leaves a tombstone, because the ledger keeps its name."""

    id: str
    rev: int
    project_id: str
    name: str
    description: str
    created_at_us: int
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A stored and inspected model file; ``info`` is JSON of what the file says of itself."""

    sha256: str
    project_id: str
    size_bytes: int
    format: str
    info: str
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """An immutable version of a model: one artifact under a semantic version.

    ``context_tokens`` is what the model was trained for, 0 where the file does not say.
    """

    id: str
    rev: int
    project_id: str
    model_id: str
    version: str
    artifact_sha256: str
    source: str
    license: str
    description: str
    context_tokens: int
    created_at_us: int
    created_by: str
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedVersion(ModelVersion):
    """A version together with the name of its model."""

    model_name: str

    @property
    def ref(self) -> str:
        """The version as people write it: ``NAME@VERSION``."""
        return f"{self.model_name}@{self.version}"
