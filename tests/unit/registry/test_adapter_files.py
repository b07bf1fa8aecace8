"""Files of LoRA adapters: told from models, by llama.cpp's way of saying it and by PEFT's."""

import json
from pathlib import Path

import pytest

from gguf_bytes import BASIC_KEYS, F32, STRING, Tensor, build, key, text
from pilotage.registry.gguf import read_gguf
from pilotage.registry.survey import survey
from tiny_adapter import make_adapter

ADAPTER_KEYS = (
    BASIC_KEYS[0],
    key("general.type", STRING, text("adapter")),
    key("adapter.type", STRING, text("lora")),
)
PAIR = (
    Tensor("output.weight.lora_a", (8, 1), F32, 0),
    Tensor("output.weight.lora_b", (1, 4), F32, 32),
)
SAFETENSORS = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_file_is_a_model_unless_it_says_that_it_is_an_adapter(tmp_path: Path) -> None:
    model = write(tmp_path / "model.gguf", build())
    projector = (BASIC_KEYS[0], key("general.type", STRING, text("mmproj")))
    other = write(tmp_path / "other.gguf", build(keys=projector))
    adapter = write(tmp_path / "adapter.gguf", build(keys=ADAPTER_KEYS, tensors=PAIR))
    assert [read_gguf(path).kind for path in (model, other, adapter)] == [
        "model",
        "model",
        "adapter",
    ]


def test_an_adapter_of_another_sort_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter.gguf", build(keys=ADAPTER_KEYS[:2]))
    with pytest.raises(ValueError, match=r"adapter\.type is not 'lora'"):
        read_gguf(path)


def test_a_made_adapter_has_no_tokenizer_and_names_its_architecture(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    found, pickles = survey({"": make_adapter(tiny_gguf, tmp_path / "a.gguf", seed=1)})
    assert (found.kind, found.architecture, found.format) == ("adapter", "llama", "gguf")
    assert (found.has_tokenizer, found.context_length, pickles) == (False, None, {})
    model, _ = survey({"": tiny_gguf})
    assert (model.kind, model.has_tokenizer) == ("model", True)


def test_a_folder_of_peft_is_an_adapter_unless_a_model_is_in_it(tmp_path: Path) -> None:
    weights = len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(4)
    files = {
        "adapter_model.safetensors": write(tmp_path / "w", weights),
        "adapter_config.json": write(tmp_path / "a", b"{}"),
    }
    assert survey(files)[0].kind == "adapter"
    config = json.dumps({"model_type": "llama"}).encode()
    assert survey(files | {"config.json": write(tmp_path / "c", config)})[0].kind == "model"
