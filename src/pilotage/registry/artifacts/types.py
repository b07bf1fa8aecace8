"""What artifacts are made of: paths, blobs, and what was seen when somebody looked into them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Format(StrEnum):
    """What a file is by its content; the first three are weights."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    PICKLE = "pickle"
    HDF5 = "hdf5"
    NUMPY = "numpy"
    JSON = "json"
    TEXT = "text"
    BINARY = "binary"


class TreeEntry(NamedTuple):
    """A file of a tree: where it is, what is in it, how long it is."""

    path: str
    sha256: str
    size: int


class Pickle(NamedTuple):
    """A file that would run code when it is loaded, and how that was seen."""

    path: str
    sha256: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a file or a tree says of itself; None means "not stated".

    ``format`` is that of the weights, ``parameters`` their number, ``dtypes`` the same by type.
    ``license`` is an SPDX id where the text is known, ``license_from`` what says so. ``code`` names
    the Python files in the tree: nothing here runs them. ``pickles`` were let in for
    ``pickle_reason``. ``kind`` is "model", or "adapter" for what is put on a model; ``matrices`` of
    so many ``blocks`` are what a GGUF file has of them, or changes: see ``registry.matrices``.
    """

    format: str = Format.GGUF
    kind: str = "model"
    architecture: str = ""
    name: str | None = None
    parameters: int = 0
    quantization: str = ""
    context_length: int | None = None
    file_bytes: int = 0
    license: str | None = None
    license_from: str = ""
    has_chat_template: bool = False
    has_tokenizer: bool = False
    tensor_count: int = 0
    metadata_count: int = 0
    file_count: int = 1
    dtypes: Mapping[str, int] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    matrices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    blocks: int = 0
    code: tuple[str, ...] = ()
    pickles: tuple[Pickle, ...] = ()
    pickle_reason: str = ""


class UnpackLimits(NamedTuple):
    """What an archive may come to; ``ratio`` is unpacked to packed bytes, of all and of each."""

    files: int = 10_000
    total_bytes: int = 1 << 40
    ratio: int = 200
    directory_bytes: int = 16 << 20


class Member(NamedTuple):
    """A file of an archive as its directory has it; it lies from ``begin`` to ``end``."""

    name: str
    size: int
    packed: int
    begin: int
    end: int
    method: int = 0
    mode: int = 0
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection of garbage found; ``deleted`` is False for one that only looked."""

    blobs: int
    bytes: int
    kept_young: int
    deleted: bool
