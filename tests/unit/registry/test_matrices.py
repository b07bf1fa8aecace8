"""What a GGUF file has of matrices, and which adapters fit which models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.matrices import MOST_KINDS, find_misfit, list_matrices
from pilotage.registry.survey import survey
from tiny_adapter import make_adapter

Q = "blk.{}.attn_q.weight"
MODEL = {
    "token_embd.weight": (64, 100),
    "per_layer_token_embd.weight": (32, 100),
    "output_norm.weight": (64,),
    **{Q.format(number): (64, 32) for number in range(3)},
    "blk.3.attn_q.weight": (64, 48),
    "blk.0.ffn_up_exps.weight": (64, 128, 8),
}


def look(tensors: Mapping[str, Sequence[int]], *, is_adapter: bool = False) -> Inspection:
    found = list_matrices(tensors, is_adapter=is_adapter)
    kind = "adapter" if is_adapter else "model"
    return Inspection(kind=kind, matrices=found.sizes, blocks=found.blocks)


def tune(name: str, columns: int, rows: int, rank: int = 4) -> dict[str, tuple[int, int]]:
    return {f"{name}.lora_a": (columns, rank), f"{name}.lora_b": (rank, rows)}


def test_the_same_matrix_of_all_blocks_is_kept_once() -> None:
    found = look(MODEL)
    assert found.blocks == 4
    assert found.matrices == {
        "blk.*.attn_q.weight": ["64x32", "64x48"],
        "blk.*.ffn_up_exps.weight": ["64x128"],
        "per_layer_token_embd.weight": ["32x100"],
        "token_embd.weight": ["64x100"],
    }


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        (tune(Q.format(0), 64, 32), ""),
        (tune(Q.format(3), 64, 48) | {"blk.0.attn_norm.weight": (64,)}, ""),
        ({"token_embd.weight.lora_a": (4, 100), "token_embd.weight.lora_b": (4, 64)}, ""),
        (
            {
                "per_layer_token_embd.weight.lora_a": (4, 100),
                "per_layer_token_embd.weight.lora_b": (4, 32),
            },
            "",
        ),
        (
            {
                "blk.0.ffn_up_exps.weight.lora_a": (64, 4, 8),
                "blk.0.ffn_up_exps.weight.lora_b": (4, 128, 8),
            },
            "",
        ),
        (tune(Q.format(4), 64, 32), "it changes 5 blocks, and there are 4"),
        (
            tune(Q.format(0), 32, 64),
            "it changes blk.*.attn_q.weight of 32x64, and there 64x32 or 64x48 is",
        ),
        (tune("output.weight", 64, 9), "it changes output.weight of 64x9, and there none is"),
    ],
)
def test_an_adapter_changes_matrices_that_there_are(
    tensors: Mapping[str, Sequence[int]], why: str
) -> None:
    assert find_misfit(look(tensors, is_adapter=True), look(MODEL)) == why


def test_architectures_are_compared_and_what_nobody_knows_is_not() -> None:
    adapter = replace(look(tune("output.weight", 64, 9), is_adapter=True), architecture="llama")
    assert find_misfit(adapter, Inspection(architecture="llama")) == ""
    assert find_misfit(adapter, Inspection()) == ""
    assert "for llama models" in find_misfit(adapter, Inspection(architecture="qwen2"))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"output.weight.lora_a": (64, 4)}, "no pair of matrices"),
        ({"output.weight.lora_b": (64, 4)}, "no pair of matrices"),
        ({"output.weight.lora_a": (64, 4), "output.weight.lora_b": (4,)}, "no pair of matrices"),
        ({"output.weight.lora_a": (64, 4), "output.weight.lora_b": (5, 9)}, "are 4 and 5"),
        ({"output.weight": (64, 4)}, "neither lora_a nor lora_b"),
    ],
)
def test_an_adapter_that_fits_no_model_is_none(
    tensors: Mapping[str, Sequence[int]], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        list_matrices(tensors, is_adapter=True)


def test_of_a_file_with_too_many_kinds_nothing_is_kept() -> None:
    tensors = {f"matrix-{number}": (1, 1) for number in range(MOST_KINDS + 1)}
    assert look(tensors).matrices == {}
    assert len(look(dict(list(tensors.items())[:-1])).matrices) == MOST_KINDS


@given(st.dictionaries(st.text(), st.lists(st.integers(1, 9), min_size=1, max_size=4)))
def test_whatever_is_changed_of_a_model_is_in_it(tensors: dict[str, list[int]]) -> None:
    matrices = {name: shape for name, shape in tensors.items() if len(shape) > 1}
    changed: dict[str, Sequence[int]] = {}
    for name, (columns, rows, *_) in matrices.items():
        if not name.endswith("token_embd.weight"):
            changed |= tune(name, columns, rows)
    assert find_misfit(look(changed, is_adapter=True), look(tensors)) == ""


def test_a_real_adapter_fits_its_own_model(tiny_gguf: Path, tmp_path: Path) -> None:
    model, _ = survey({"": tiny_gguf})
    adapter, _ = survey({"": make_adapter(tiny_gguf, tmp_path / "adapter.gguf", seed=1)})
    assert model.blocks == adapter.blocks == 2
    assert len(adapter.matrices) == 7
    assert find_misfit(adapter, model) == ""
