"""What the registry is: models, their immutable versions, and the files these are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """How far a version has come on its way to users; only promotions write it."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"
    ARCHIVED = "archived"

    def reaches(self, lowest: "Stage") -> bool:
        """Say whether a version in this stage is as far as another; an archived one is nowhere."""
        way = list(Stage)[:-1]
        return self in way and way.index(self) >= way.index(lowest)


class ModelSource(StrEnum):
    """Where a version comes from."""

    SE_DARWIN = "se_darwin"
    MANUAL = "manual"
    HUGGINGFACE = "huggingface"
    VERTEX_MODEL_GARDEN = "vertex_model_garden"
    CUSTOM = "custom"
    PACKAGE = "package"


SOURCE_MANUAL = ModelSource.MANUAL
SOURCE_PACKAGE = ModelSource.PACKAGE


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
    """A stored and inspected model: a file, or a tree of ``file_count`` files by its manifest.

    ``info`` is JSON of what was found in it. Deleting leaves a tombstone, because versions that
    were deleted before it name it.
    """

    sha256: str
    project_id: str
    size_bytes: int
    format: str
    info: str
    created_at_us: int
    rev: int = 1
    file_count: int = 0
    deleted_at_us: int | None = None

    @property
    def is_tree(self) -> bool:
        """Say whether it is a tree of files."""
        return self.file_count > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version of a model under a semantic number; what it runs never changes.

    It is made of a stored file (``artifact_sha256``), or is a model that others host and has none:
    ``artifact_uri`` and ``serving_container_uri`` say where that is. ``context_tokens`` is what the
    model was trained for, 0 where nobody says. ``semver_key`` orders versions in the database.
    """

    id: str
    rev: int
    project_id: str
    model_id: str
    version: str
    artifact_sha256: str | None
    source: str
    license: str
    description: str
    context_tokens: int
    created_at_us: int
    created_by: str
    deleted_at_us: int | None
    stage: str = Stage.DEVELOPMENT
    semver_key: str = ""
    is_release: bool = True
    display_name: str = ""
    base_model: str = ""
    parent_version_id: str | None = None
    artifact_uri: str = ""
    serving_container_uri: str = ""
    custom_metadata: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    updated_at_us: int = 0
    deprecated_at_us: int | None = None
    deprecation_reason: str = ""
    replaced_by_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetails:
    """What may be said of a version beside its file; ``parent`` is a ref of what it was made of.

    ``context_tokens`` None means what the file says.
    """

    display_name: str = ""
    base_model: str = ""
    parent: str = ""
    artifact_uri: str = ""
    serving_container_uri: str = ""
    context_tokens: int | None = None
    custom_metadata: Mapping[str, object] = field(default_factory=dict)
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedVersion(ModelVersion):
    """A version together with the name of its model."""

    model_name: str

    @property
    def ref(self) -> str:
        """The version as people write it: ``NAME@VERSION``."""
        return f"{self.model_name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceDraft:
    """Something that was found out about a version, and how.

    ``kind`` is dotted text (``metric.performance``, ``scan.security``), ``subject`` what of this
    kind (``accuracy``, the name of a suite). ``value`` with its 95 % interval ``low`` to ``high``
    was measured on ``n`` samples; ``passed`` None is a measurement that judges nothing. ``run_id``,
    ``dataset_version_id`` and ``tool`` say where it comes from, ``hash`` is the SHA-256 of what it
    was read from.
    """

    kind: str
    subject: str = ""
    value: Decimal | None = None
    unit: str = ""
    n: int | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    passed: bool | None = None
    hash: str = ""
    run_id: str = ""
    dataset_version_id: str = ""
    tool: str = ""
    note: str = ""
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(EvidenceDraft):
    """A row of evidence; a newer one of its kind and subject supersedes it, nothing changes it."""

    id: str
    project_id: str
    version_id: str
    created_at_us: int
    created_by: str
    superseded_by: str | None = None


class NodeKind(StrEnum):
    """What stands in the lineage: data, runs, versions, and what became of these."""

    DATASET = "dataset"
    TUNING_RUN = "tuning_run"
    BASE_MODEL = "base_model"
    PACKAGE = "package"
    PROMPT = "prompt"
    VERSION = "version"
    EVALUATION = "evaluation"
    DEPLOYMENT = "deployment"
    ROLLOUT = "rollout"
    ROLLBACK = "rollback"


class Node(NamedTuple):
    """One thing in the lineage, as ``KIND:ID``."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What came of what: read as "FROM RELATION TO", for example "run produced version"."""

    id: str
    project_id: str
    from_kind: str
    from_id: str
    to_kind: str
    to_id: str
    relation: str
    at_us: int
    by: str

    @property
    def source(self) -> Node:
        """What was there before."""
        return Node(self.from_kind, self.from_id)

    @property
    def target(self) -> Node:
        """What came of it."""
        return Node(self.to_kind, self.to_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The part of the graph around a node; ``is_cut`` where its bounds left something out.

    ``depths`` says how many steps a node is away: below 0 for what the middle came of.
    """

    middle: Node
    depths: Mapping[Node, int]
    edges: Sequence[Edge]
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A revision of what people say of a version: text by the name of its field."""

    version_id: str
    rev: int
    project_id: str
    fields: Mapping[str, str]
    created_at_us: int
    created_by: str
