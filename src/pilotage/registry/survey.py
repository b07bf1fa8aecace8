"""Looking into the files of an artifact: what each is by its content, and what they say together.

Runs in the child process of :mod:`pilotage.registry.inspect_child`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pilotage.registry.artifacts.types import Format, Inspection
from pilotage.registry.gguf import ADAPTER, MODEL, GgufInfo, read_gguf
from pilotage.registry.licences import detect_licence, read_front_matter, spell_known
from pilotage.registry.pickles import find_pickle, is_named_so
from pilotage.registry.safetensors import SafetensorsInfo, read_safetensors

MOST_TEXT_BYTES = 1 << 20
MOST_JSON_BYTES = 64 << 20
INDEX = ".safetensors.index.json"
_HEAD_BYTES = 1 << 12
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LICENCES = ("license", "licence", "copying", "notice")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_MOST_CONTEXT = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the files are: the readable ones with what they say, and why others are pickles."""

    formats: dict[str, Format] = field(default_factory=dict)
    ggufs: dict[str, GgufInfo] = field(default_factory=dict)
    tensors: dict[str, SafetensorsInfo] = field(default_factory=dict)
    pickles: dict[str, str] = field(default_factory=dict)


def survey(files: Mapping[str, Path]) -> tuple[Inspection, dict[str, str]]:
    """Look into files by their paths in the artifact ("" for one that is all of it).

    Return what they say together, and why those that are pickles are. Raises ValueError that says
    what is wrong, and with which.
    """
    seen = Seen()
    for path, file in files.items():
        try:
            seen.formats[path] = _look_into(path, file, seen)
        except ValueError as wrong:
            raise ValueError(f"{path!a}: {wrong}" if path else str(wrong)) from None
    _check_indexes(files, seen)
    return _put_together(files, seen), seen.pickles


def _look_into(path: str, file: Path, seen: Seen) -> Format:
    """Return what a file is; its name promises something, its content decides."""
    head = _read(file, _HEAD_BYTES)
    suffix = PurePosixPath(path.lower()).suffix
    if head.startswith(b"GGUF") or suffix == ".gguf":
        seen.ggufs[path] = read_gguf(file)
        return Format.GGUF
    if _begins_like_safetensors(head) or suffix == ".safetensors":
        seen.tensors[path] = read_safetensors(file)
        return Format.SAFETENSORS
    why = find_pickle(file)
    found = _name_other(path, file, head)
    if why is None and is_named_so(path) and found in (Format.TEXT, Format.BINARY):
        why = "it is named like one, and is nothing else that is known"
    if why is not None:
        seen.pickles[path] = why
        return Format.PICKLE
    if not path:
        raise ValueError(
            f"it starts with {head[:4]!r}, a GGUF file with b'GGUF', a safetensors file with the "
            "length of its header"
        )
    return found


def _name_other(path: str, file: Path, head: bytes) -> Format:
    if head.startswith(b"\x93NUMPY"):
        return Format.NUMPY
    if head.startswith(_HDF5):
        return Format.HDF5
    try:
        head.decode()
    except UnicodeDecodeError as wrong:
        if wrong.start < len(head) - 4:  # not a letter that the end of the head cuts
            return Format.BINARY
    if b"\x00" in head:
        return Format.BINARY
    if path.lower().endswith(".json"):
        _load_json(file)
        return Format.JSON
    return Format.TEXT


def _begins_like_safetensors(head: bytes) -> bool:
    """Say whether something begins with a binary number and an object of JSON behind it."""
    is_number = any(byte < 0x20 or byte > 0x7E for byte in head[:8])
    return head[8:9] == b"{" and is_number


def _check_indexes(files: Mapping[str, Path], seen: Seen) -> None:
    """Raise ValueError unless every tensor that an index names is where it says."""
    for path, file in files.items():
        if not path.endswith(INDEX):
            continue
        index = _load_json(file)
        weights = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weights, dict):
            raise ValueError(f"{path!a}: it has no weight_map")  # noqa: TRY004 - of the file
        names: dict[str, set[str]] = {}
        for tensor, shard in weights.items():
            where = str(PurePosixPath(path).with_name("x").parent / str(shard))
            if where not in seen.tensors:
                raise ValueError(
                    f"{path!a}: it names {str(shard)[:200]!a}, which is not in the tree"
                )
            if where not in names:
                names[where] = {tensor.name for tensor in seen.tensors[where].tensors}
            if tensor not in names[where]:
                raise ValueError(f"{path!a}: {tensor[:200]!a} is not in {where!a}, as it says")


def _put_together(files: Mapping[str, Path], seen: Seen) -> Inspection:
    formats: dict[str, int] = {}
    for found in seen.formats.values():
        formats[found] = formats.get(found, 0) + 1
    weights = (Format.PICKLE, Format.SAFETENSORS, Format.GGUF)
    name = next((item for item in weights if item in formats), None)
    if name is None:
        raise ValueError("none of its files are weights: GGUF or safetensors")
    first = next(iter(seen.ggufs.values()), None)
    config = _load_named(files, "config.json")
    dtypes: dict[str, int] = {}
    metadata: dict[str, str] = {}
    for info in seen.tensors.values():
        metadata |= info.metadata
        for dtype, count in info.dtypes.items():
            dtypes[dtype] = dtypes.get(dtype, 0) + count
    licence, licence_from = _find_licence(files, first)
    return Inspection(
        format=name,
        kind=_find_kind(files, first),
        architecture=first.architecture if first else _text(config.get("model_type")) or "",
        name=first.name if first else _text(config.get("_name_or_path")),
        parameters=sum(dtypes.values()) + sum(info.parameters for info in seen.ggufs.values()),
        quantization=first.quantization
        if first
        else max(dtypes, key=lambda d: dtypes[d], default=""),
        context_length=first.context_length if first else _context(config),
        file_bytes=sum(file.stat().st_size for file in files.values()),
        license=licence,
        license_from=licence_from,
        has_chat_template=(first.has_chat_template if first else False) or _has_template(files),
        has_tokenizer=(first is not None and first.kind == MODEL)
        or _find(files, *_TOKENIZERS) is not None,
        tensor_count=sum(info.tensor_count for info in seen.ggufs.values())
        + sum(len(info.tensors) for info in seen.tensors.values()),
        metadata_count=sum(info.metadata_count for info in seen.ggufs.values()) + len(metadata),
        file_count=len(files),
        dtypes=dtypes,
        formats=formats,
        metadata=metadata,
        matrices=first.matrices.sizes if first else {},
        blocks=first.matrices.blocks if first else 0,
        code=tuple(path for path in files if path.lower().endswith((".py", ".pyc", ".so"))),
    )


def _find_kind(files: Mapping[str, Path], first: GgufInfo | None) -> str:
    """Return whether the weights are a model's or an adapter's, as PEFT and llama.cpp say it."""
    if first is not None:
        return first.kind
    is_alone = _find(files, "config.json") is None
    return ADAPTER if is_alone and _find(files, "adapter_config.json") is not None else MODEL


def _find_licence(files: Mapping[str, Path], first: GgufInfo | None) -> tuple[str | None, str]:
    """Return the licence and what says it: its own text before the model card before the file."""
    for path in sorted(files, key=_depth):
        name = PurePosixPath(path).name.lower()
        if name.startswith(_LICENCES):
            found = detect_licence(_read_text(files[path]))
            if found:
                return found, path
    card = _find(files, "readme.md")
    found = read_front_matter(_read_text(files[card])) if card is not None else None
    if found and card is not None:
        return found, card
    if first is not None and first.license:
        return spell_known(first.license), "GGUF metadata"
    return None, ""


def _has_template(files: Mapping[str, Path]) -> bool:
    if _find(files, "chat_template.jinja", "chat_template.json") is not None:
        return True
    return bool(_load_named(files, "tokenizer_config.json").get("chat_template"))


def _context(config: Mapping[str, object]) -> int | None:
    for name in _CONTEXTS:
        value = config.get(name)
        if type(value) is int and 0 < value <= _MOST_CONTEXT:
            return value
    return None


def _find(files: Mapping[str, Path], *names: str) -> str | None:
    """Return the path of the first file of these names, the one in the fewest folders."""
    found = (path for path in files if PurePosixPath(path).name.lower() in names)
    return min(found, key=_depth, default=None)


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _load_named(files: Mapping[str, Path], name: str) -> dict[str, object]:
    path = _find(files, name)
    content = _load_json(files[path]) if path is not None else {}
    return content if isinstance(content, dict) else {}


def _load_json(file: Path) -> object:
    if file.stat().st_size > MOST_JSON_BYTES:
        raise ValueError(f"it is JSON of more than {MOST_JSON_BYTES >> 20} MiB")
    try:
        return json.loads(file.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as wrong:
        raise ValueError(f"it is not JSON: {wrong.msg} at {wrong.pos}") from None


def _read(file: Path, size: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(size)


def _read_text(file: Path) -> str:
    return _read(file, MOST_TEXT_BYTES).decode(errors="replace")


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(letter for letter in value if letter.isprintable())[:200] or None
