"""What datasets are: names, their immutable versions, and the releases that point to versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Numbering(StrEnum):
    """How the versions of a dataset are numbered, decided when it is created."""

    SEMVER = "semver"
    DATE = "date"


class DataFormat(StrEnum):
    """How records are written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Split(StrEnum):
    """What a part of a dataset is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class PiiHandling(StrEnum):
    """What was done about personal data before the dataset came here."""

    NONE = "none"  # a scan found nothing
    MASKED = "masked"
    TOKENISED = "tokenised"
    CONTAINS = "contains"
    UNKNOWN = "unknown"  # nobody has looked


class DataFile(NamedTuple):
    """A file of a version; ``path`` is unique in it."""

    split: str
    path: str
    sha256: str
    size: int
    records: int


class SplitCount(NamedTuple):
    """What a split comes to."""

    name: str
    files: int
    records: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named line of versions; deleting leaves a tombstone, because lineages name it."""

    id: str
    rev: int
    project_id: str
    name: str
    description: str
    owner: str
    tags: tuple[str, ...]
    numbering: str
    created_at_us: int
    created_by: str
    deleted_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDraft:
    """What is said of a version to create; the rest is read from its files.

    ``files`` is the SHA-256 of each file by its path, by split. ``leak_reason`` says why records
    may be in two splits, where they are. ``derived_from`` is a ref of what it was made of.
    """

    version: str
    format: str
    files: Mapping[str, Mapping[str, str]]
    license: str = ""
    source: str = ""
    description: str = ""
    pii: str = PiiHandling.UNKNOWN
    pii_scanned_by: str = ""
    pii_findings: Mapping[str, int] = field(default_factory=dict)
    keep_until_us: int | None = None
    derived_from: str = ""
    leak_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What reading all records found.

    ``schema`` counts the types of each field; ``duplicates`` records that repeat one of their own
    split, ``leaks`` those that are in two, by pair of splits. Both are None where records are not
    compared (parquet: only its footer is read).
    """

    records: Mapping[str, int]
    schema: Mapping[str, Mapping[str, int]]
    duplicates: int | None
    leaks: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """An immutable version; only its retention, its hold and what blocks its deletion change.

    ``manifest_sha256`` is its identity: the hash of the list of its files. It is kept until
    ``keep_until_us`` and deleted after it, unless somebody holds it (``hold_reason``) or something
    living refers to it (``blocked_by`` says what did when it was last tried).
    """

    id: str
    rev: int
    project_id: str
    dataset_id: str
    dataset: str
    version: str
    version_key: str
    manifest_sha256: str
    format: str
    license: str
    source: str
    description: str
    splits: tuple[SplitCount, ...]
    schema: Mapping[str, Mapping[str, int]]
    records: int
    size_bytes: int
    duplicates: int | None
    leaks: Mapping[str, int] | None
    leak_reason: str
    pii: str
    pii_scanned_by: str
    pii_findings: Mapping[str, int]
    keep_until_us: int | None
    hold_reason: str
    blocked_by: str
    looked_at_us: int
    derived_from_id: str
    created_at_us: int
    created_by: str
    deleted_at_us: int | None

    @property
    def ref(self) -> str:
        """The version as people write it: ``NAME@VERSION``."""
        return f"{self.dataset}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRelease:
    """A name that points to a version, and can be made to point to another."""

    id: str
    rev: int
    project_id: str
    dataset_id: str
    name: str
    version_id: str
    version: str
    changed_at_us: int
    changed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDiff:
    """What is different between two versions; ``fields`` are those whose types differ."""

    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]
    records: Mapping[str, tuple[int, int]]
    fields: Mapping[str, tuple[Sequence[str], Sequence[str]]]
