"""A tiny random llama model as a GGUF file, made from code alone.

Two layers, about 100,000 weights in Q8_0, a byte-level BPE tokenizer trained on the text below and
a ChatML chat template: small enough to be made in a test run, real enough for every engine. The
bytes depend on nothing but the seed.

What it says is nonsense, but well-behaved nonsense: only the rows of printable ASCII tokens in the
output matrix are random, all others are zero. A greedy answer is therefore valid UTF-8, holds no
special token, and ends where ``max_tokens`` or a ``stop`` text says.
"""

import collections
import itertools
import os
import tempfile
from pathlib import Path

import gguf
import numpy as np

CONTEXT_TOKENS = 2048
ARCHITECTURE = "llama"
LICENSE = "Apache-2.0"
NAME = "Tiny Random"

_WIDTH = 64
_FEED_FORWARD = 128
_LAYERS = 2
_HEADS = 4
_KEY_VALUE_HEADS = 2
_MERGES = 300
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_TEXT = (
    "the ship left the harbour before the sun was up and the wind came from the west with rain "
    "in it so the crew went to their stations and the captain read the chart again by the light "
    "of a small lamp while the boat rolled over the long grey waves of the open sea where no "
    "other sail was seen that day nor on the next and on the third morning the cook who had been "
    "the first to wake called them all on deck to see what stood on the water ahead of them and "
    "nobody said a word because there in the clear cold air was the island that every one of "
    "their maps had shown in the wrong place user assistant system you are a helpful what is "
    "question answer please write short text about number one two three four five hello world"
)


def make_tiny_gguf(path: Path, seed: int = 0) -> Path:
    """Write the model of a seed to ``path``, whole or not at all, and return the path."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        _write(Path(temporary), seed)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _write(path: Path, seed: int) -> None:
    tokens, merges = _train_tokenizer()
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_name(NAME)
    writer.add_license(LICENSE)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    _add_tokenizer(writer, tokens, merges)
    for name, values in _make_tensors(tokens, seed):
        if values.ndim == 1:
            writer.add_tensor(name, values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str]) -> None:
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in _SPECIAL else normal for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(_TEMPLATE)


def _make_tensors(tokens: list[str], seed: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(seed)

    def make(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        values = random.standard_normal((rows, columns)) * scale / columns**0.5
        return np.asarray(values, np.float32)

    ones = np.ones(_WIDTH, np.float32)
    key_value_width = _WIDTH // _HEADS * _KEY_VALUE_HEADS
    output = make(len(tokens), _WIDTH, scale=4.0)
    output[[not _is_printable(token) for token in tokens]] = 0
    tensors = [("token_embd.weight", make(len(tokens), _WIDTH, scale=8.0))]
    for layer in range(_LAYERS):
        block = f"blk.{layer}."
        tensors += [
            (block + "attn_norm.weight", ones),
            (block + "attn_q.weight", make(_WIDTH, _WIDTH)),
            (block + "attn_k.weight", make(key_value_width, _WIDTH)),
            (block + "attn_v.weight", make(key_value_width, _WIDTH)),
            (block + "attn_output.weight", make(_WIDTH, _WIDTH)),
            (block + "ffn_norm.weight", ones),
            (block + "ffn_gate.weight", make(_FEED_FORWARD, _WIDTH)),
            (block + "ffn_up.weight", make(_FEED_FORWARD, _WIDTH)),
            (block + "ffn_down.weight", make(_WIDTH, _FEED_FORWARD)),
        ]
    return [*tensors, ("output_norm.weight", ones), ("output.weight", output)]


def _is_printable(token: str) -> bool:
    return token not in _SPECIAL and all("!" <= letter <= "~" or letter == "Ġ" for letter in token)


def _train_tokenizer() -> tuple[list[str], list[str]]:
    """Return tokens and merges of a byte-level BPE (the alphabet of GPT-2), trained on the text."""
    words = collections.Counter(tuple(word) for word in ("Ġ" + _TEXT.replace(" ", " Ġ")).split(" "))
    tokens = sorted(_byte_letters())
    merges: list[str] = []
    while len(merges) < _MERGES:
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(" ".join(best))
        if "".join(best) not in tokens:
            tokens.append("".join(best))
        words = collections.Counter({_merge(word, best): count for word, count in words.items()})
    return [*tokens, *_SPECIAL], merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for letter in word:
        if merged and (merged[-1], letter) == pair:
            merged[-1] += letter
        else:
            merged.append(letter)
    return tuple(merged)


def _byte_letters() -> list[str]:
    """Return the letters that stand for the 256 bytes: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(others)]
