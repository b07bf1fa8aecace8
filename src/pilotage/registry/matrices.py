"""Which matrices a GGUF file has, and whether an adapter fits a model. Pure.

An adapter is checked as llama.cpp checks it when it loads one (llama-adapter.cpp): its tensors are
pairs, ``NAME.lora_a`` of COLUMNS x RANK and ``NAME.lora_b`` of RANK x ROWS, and the model has a
matrix NAME of COLUMNS x ROWS. Those of names that end in ``token_embd.weight`` are the other way
round; tensors of norms are left out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pilotage.registry.artifacts.types import Inspection

MOST_KINDS = 512  # of a file with more nothing is kept; models have some ten of each block
_BLOCK = re.compile(r"(?<=blk\.)\d{1,9}(?=\.)")
_HALVES = (".lora_a", ".lora_b")
_EMBEDDINGS = "token_embd.weight"


class Matrices(NamedTuple):
    """The matrices of a file: sizes ("COLUMNSxROWS") by name, and in how many blocks.

    In names, ``*`` stands for the number of the block. No sizes: nothing is known.
    """

    sizes: Mapping[str, Sequence[str]]
    blocks: int


def list_matrices(tensors: Mapping[str, Sequence[int]], *, is_adapter: bool) -> Matrices:
    """Return the matrices among the tensors of a file, of an adapter those that it changes.

    Raises ValueError for an adapter that no model could have.
    """
    kinds: set[tuple[str, str]] = set()
    blocks = 0
    for name, columns, rows in _pair_up(tensors) if is_adapter else _pick(tensors):
        number = _BLOCK.search(name)
        blocks = max(blocks, int(number[0]) + 1 if number else 0)
        kinds.add((_BLOCK.sub("*", name, count=1), f"{columns}x{rows}"))
    sizes: dict[str, list[str]] = {}
    for name, size in sorted(kinds) if len(kinds) <= MOST_KINDS else ():
        sizes.setdefault(name, []).append(size)
    return Matrices(sizes, blocks)


def find_misfit(adapter: Inspection, base: Inspection) -> str:
    """Return why an adapter cannot be put on a model, "" where nothing speaks against it."""
    if adapter.architecture and base.architecture and adapter.architecture != base.architecture:
        return f"it is for {adapter.architecture} models, and that is a {base.architecture} one"
    if not base.matrices:  # nobody looked, or it is no GGUF file
        return ""
    if adapter.blocks > base.blocks:
        return f"it changes {adapter.blocks} blocks, and there are {base.blocks}"
    for name, sizes in adapter.matrices.items():
        there = base.matrices.get(name, ())
        for size in sizes:
            if size not in there:
                return f"it changes {name} of {size}, and there {' or '.join(there) or 'none'} is"
    return ""


def _pick(tensors: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int, int]]:
    return ((name, shape[0], shape[1]) for name, shape in tensors.items() if len(shape) > 1)


def _pair_up(tensors: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int, int]]:
    for name in _list_changed(tensors):
        halves = [tensors.get(f"{name}{half}", ()) for half in _HALVES]
        if any(len(shape) < 2 for shape in halves):
            raise ValueError(f"of {name!a} it has no pair of matrices, lora_a and lora_b")
        down, up = halves
        if name.endswith(_EMBEDDINGS):
            yield name, up[1], down[1]
        elif down[1] == up[0]:
            yield name, down[0], up[1]
        else:
            raise ValueError(f"the ranks of {name!a} are {down[1]} and {up[0]}")


def _list_changed(names: Iterable[str]) -> list[str]:
    changed: dict[str, None] = {}
    for name in names:
        if name.endswith(_HALVES):
            changed[name[: -len(_HALVES[0])]] = None
        elif not name.endswith("_norm.weight"):
            raise ValueError(f"{name!a} is no part of an adapter: neither lora_a nor lora_b")
    return list(changed)
