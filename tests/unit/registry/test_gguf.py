"""Untrusted GGUF files: what is read of good ones, how bad ones are refused."""

import os
import struct
import tracemalloc
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_bytes import (
    ARRAY,
    BASIC_KEYS,
    BASIC_TENSORS,
    BOOL,
    F32,
    Q4_0,
    STRING,
    U8,
    U32,
    U64,
    Tensor,
    build,
    header,
    key,
    text,
)
from pilotage.registry.gguf import MAX_METADATA_BYTES, GgufInfo, read_gguf
from pilotage.registry.matrices import Matrices

MEMORY_LIMIT_BYTES = 4 << 20


def read(tmp_path: Path, content: bytes) -> GgufInfo:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return read_gguf(path)


@pytest.mark.parametrize("version", [2, 3])
def test_what_a_file_says_of_itself_is_read(tmp_path: Path, version: int) -> None:
    content = build(version=version)
    assert read(tmp_path, content) == GgufInfo(
        architecture="llama",
        name="Small  [31mand red",
        parameters=64 * 4 + 8,
        quantization="Q4_0",
        context_length=128,
        file_bytes=len(content),
        license="MIT",
        has_chat_template=True,
        tensor_count=2,
        metadata_count=len(BASIC_KEYS),
        matrices=Matrices({"token_embd.weight": ["64x4"]}, 0),
    )


def test_what_a_file_does_not_say_is_none(tmp_path: Path) -> None:
    info = read(tmp_path, build(keys=BASIC_KEYS[:1]))
    assert (info.name, info.license, info.context_length) == (None, None, None)
    assert not info.has_chat_template


def test_the_stated_mix_names_the_quantization(tmp_path: Path) -> None:
    mix = key("general.file_type", U32, struct.pack("<I", 15))
    assert read(tmp_path, build(keys=[BASIC_KEYS[0], mix])).quantization == "Q4_K_M"


def test_another_alignment_moves_the_data(tmp_path: Path) -> None:
    keys = [BASIC_KEYS[0], key("general.alignment", U32, struct.pack("<I", 8))]
    tensors = [Tensor("a", (8,), F32, 0), Tensor("b", (2,), F32, 32)]
    assert read(tmp_path, build(keys, tensors, data_bytes=40)).parameters == 10


@pytest.mark.parametrize(
    "kind", [kind for kind in gguf.GGML_QUANT_SIZES if kind.name not in ("Q8_1", "Q8_K")]
)
def test_every_tensor_type_has_the_size_its_reference_gives(
    tmp_path: Path, kind: gguf.GGMLQuantizationType
) -> None:
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    tensors = [Tensor("a", (weights * 3, 5), int(kind), 0)]
    whole = build(BASIC_KEYS[:1], tensors, data_bytes=size * 15)
    assert read(tmp_path, whole).quantization == kind.name
    with pytest.raises(ValueError, match="cut off or damaged"):
        read(tmp_path, whole[:-1])


def header_claims(tensor_count: int = 1, key_count: int = 1) -> bytes:
    return header(tensor_count, key_count) + bytes(64)


def with_key(extra: bytes) -> bytes:
    return build(keys=[*BASIC_KEYS, extra])


def with_tensor(*tensors: Tensor, data_bytes: int = 4096) -> bytes:
    return build(tensors=tensors, data_bytes=data_bytes)


BAD_FILES = {
    "empty": (b"", "ends inside its first four bytes"),
    "not a model": (b"PK\x03\x04" + bytes(100), "starts with b'PK"),
    "cut header": (build()[:20], "ends inside the number of metadata keys"),
    "version 1": (header(1, 1, version=1), "version 1, only 2 and 3"),
    "version 4": (header(1, 1, version=4), "version 4, only 2 and 3"),
    "big-endian": (header(1, 1, version=0x0300_0000), "big-endian"),
    "no tensors": (header_claims(tensor_count=0), "it has no tensors"),
    "2^60 tensors": (header_claims(tensor_count=1 << 60), f"number of tensors is {1 << 60}"),
    "2^60 keys": (header_claims(key_count=1 << 60), f"number of metadata keys is {1 << 60}"),
    "cut metadata": (build()[:60], "ends inside"),
    "cut directory": (build()[:-260], "ends inside"),
    "cut data": (build()[:-1], "cut off or damaged"),
    "key of 2^40 bytes": (
        header(1, 1) + struct.pack("<Q", 1 << 40),
        f"length of metadata key 0 is {1 << 40}",
    ),
    "text of 2^40 bytes": (
        with_key(key("x", STRING, struct.pack("<Q", 1 << 40))),
        f"length of 'x' is {1 << 40}",
    ),
    "text beyond the end": (
        with_key(key("x", STRING, struct.pack("<Q", 1 << 20))),
        "the file ends inside 'x'",
    ),
    "array of 2^60 numbers": (
        with_key(key("x", ARRAY, struct.pack("<IQ", U64, 1 << 60))),
        f"length of 'x' is {1 << 60}",
    ),
    "array beyond the end": (
        with_key(key("x", ARRAY, struct.pack("<IQ", U64, 1 << 20))),
        "the file ends inside 'x'",
    ),
    "array of texts beyond the end": (
        with_key(key("x", ARRAY, struct.pack("<IQ", STRING, 1 << 25) + text("a") * 3)),
        "a text in 'x'",
    ),
    "array of arrays": (
        with_key(key("x", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(12))),
        "'x' is an array of the type 9",
    ),
    "unknown value type": (with_key(key("x", 13, bytes(8))), "'x' has the unknown type 13"),
    "neither true nor false": (with_key(key("x", BOOL, b"\x02")), "neither true nor false but 2"),
    "key twice": (with_key(BASIC_KEYS[0]), "'general.architecture' occurs twice"),
    "key not UTF-8": (with_key(key(b"\xff", U8, b"\x00")), "metadata key 9 is not UTF-8"),
    "text not UTF-8": (with_key(key("x", STRING, text(b"\xff"))), "'x' is not UTF-8"),
    "no architecture": (build(keys=BASIC_KEYS[1:]), "general.architecture is ''"),
    "strange architecture": (
        build(keys=[key("general.architecture", STRING, text("../\x1b[0m"))]),
        "general.architecture is '../",
    ),
    "architecture is a number": (
        build(keys=[key("general.architecture", U8, b"\x01")]),
        "general.architecture is not a text",
    ),
    "name is a number": (
        build(keys=[BASIC_KEYS[0], key("general.name", U8, b"\x01")]),
        "general.name is not a text",
    ),
    "context of zero": (
        build(keys=[BASIC_KEYS[0], key("llama.context_length", U8, b"\x00")]),
        "llama.context_length is '0'",
    ),
    "context is a text": (
        build(keys=[BASIC_KEYS[0], key("llama.context_length", STRING, text("many"))]),
        "llama.context_length is 'many'",
    ),
    "alignment of zero": (
        with_key(key("general.alignment", U32, bytes(4))),
        "general.alignment is '0', not a power of two from 8 to 65536",
    ),
    "alignment of 24": (with_key(key("general.alignment", U32, b"\x18\0\0\0")), "is '24'"),
    "unknown tensor type": (
        with_tensor(Tensor("t", (32,), 99, 0)),
        "tensor 't' has the unknown type 99",
    ),
    "long tensor name": (
        with_tensor(Tensor("t" * 65, (32,), F32, 0)),
        "name of tensor 0 is 65, at most 64",
    ),
    "no dimensions": (with_tensor(Tensor("t", (), F32, 0)), "'t' has 0 dimensions"),
    "five dimensions": (with_tensor(Tensor("t", (1,) * 5, F32, 0)), "'t' has 5 dimensions"),
    "empty tensor": (with_tensor(Tensor("t", (32, 0), F32, 0)), "'t' is empty"),
    "half a block": (with_tensor(Tensor("t", (48,), Q4_0, 0)), "rows of 48 weights"),
    "2^63 rows": (with_tensor(Tensor("t", (32, 1 << 63), Q4_0, 0)), "cut off or damaged"),
    "2^63 x 2^63 weights": (
        with_tensor(Tensor("t", (1 << 63, 1 << 63, 1 << 63), F32, 0)),
        "cut off or damaged",
    ),
    "offset beyond the end": (with_tensor(Tensor("t", (8,), F32, 8192)), "cut off or damaged"),
    "offset of 2^63": (with_tensor(Tensor("t", (8,), F32, 1 << 63)), "cut off or damaged"),
    "offset not aligned": (
        with_tensor(Tensor("t", (8,), F32, 16)),
        "'t' starts at 16, not at a multiple of 32",
    ),
    "tensors overlap": (
        with_tensor(Tensor("t", (32,), F32, 0), Tensor("u", (8,), F32, 96)),
        "'u' overlaps another tensor",
    ),
    "tensor twice": (
        with_tensor(Tensor("t", (8,), F32, 0), Tensor("t", (8,), F32, 32)),
        "'t' occurs twice",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = BAD_FILES[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^[ -~]+$") as refused:
            read(tmp_path, content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(refused.value)
    assert peak < MEMORY_LIMIT_BYTES


def test_more_metadata_than_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    array = key("x", ARRAY, struct.pack("<IQ", U8, MAX_METADATA_BYTES))
    path.write_bytes(header(1, 1) + array)
    os.truncate(path, MAX_METADATA_BYTES * 2)
    with pytest.raises(ValueError, match="its metadata is larger than 64 MiB"):
        read_gguf(path)


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="not a regular file"):
        read_gguf(pipe)
    with pytest.raises(ValueError, match="not a regular file"):
        read_gguf(tmp_path)


VALID = build()
DIRECTORY_END = len(VALID) - 192
changes = st.lists(
    st.tuples(
        st.integers(0, DIRECTORY_END - 1),
        st.sampled_from([bytes([byte]) for byte in range(256)] + [b"\xff" * 8, bytes(8)]),
    ),
    min_size=1,
    max_size=6,
)


@given(changes=changes, length=st.one_of(st.just(len(VALID)), st.integers(0, len(VALID))))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], length: int
) -> None:
    content = bytearray(VALID)
    for position, put in changes:
        content[position : position + len(put)] = put
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content[:length])
    tracemalloc.start()
    try:
        info = read_gguf(path)
    except ValueError as refused:
        assert str(refused).isprintable()  # noqa: PT017 - either outcome is right
    else:
        assert info.file_bytes == length
        assert 1 <= info.tensor_count <= len(BASIC_TENSORS)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY_LIMIT_BYTES
