"""A small random LoRA adapter for a GGUF model, made from code alone.

Every matrix of the model's blocks gets a difference of low rank, so that a greedy answer of any
length differs from the base model's. The bytes depend on nothing but model, seed and strength.
"""

import os
import tempfile
from pathlib import Path

import gguf
import numpy as np

RANK = 4


def make_adapter(base: Path, path: Path, seed: int, strength: float = 0.5) -> Path:
    """Write an adapter for a model to ``path``, whole or not at all, and return the path."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        _write(gguf.GGUFReader(base), Path(temporary), seed, strength)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _write(model: gguf.GGUFReader, path: Path, seed: int, strength: float) -> None:
    random = np.random.default_rng(seed)
    architecture = model.get_field("general.architecture")
    assert architecture is not None
    writer = gguf.GGUFWriter(path, architecture.contents())
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for tensor in model.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            columns, rows = map(int, tensor.shape)
            down = random.standard_normal((RANK, columns)) * strength / columns**0.5
            up = random.standard_normal((rows, RANK)) * strength / RANK**0.5
            writer.add_tensor(f"{tensor.name}.lora_a", np.asarray(down, np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", np.asarray(up, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
