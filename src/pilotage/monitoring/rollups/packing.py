"""Cells as bytes: a quarter of what they would be if every bucket named its place in full.

Buckets of a sketch lie side by side, so each is written by its distance from the one before.
"""

import zlib
from itertools import accumulate, chain
from operator import sub

import msgspec

from pilotage.core.sketch import Sketch
from pilotage.monitoring.rollups.types import Cell

_SKETCHES = ("duration", "ttft", "per_chunk", "queue")
_FASTEST = 1


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """A cell without the buckets of its sketches, and for each sketch distances and counts."""

    cell: Cell
    buckets: list[tuple[list[int], list[int]]]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Packed)


def pack(cell: Cell) -> bytes:
    """Return the bytes of a cell."""
    sketches = {name: getattr(cell, name) for name in _SKETCHES}
    bare = {name: Sketch(one.zeros, one.total) for name, one in sketches.items()}
    packed = _Packed(
        msgspec.structs.replace(cell, **bare),
        [_split(sketch.buckets) for sketch in sketches.values()],
    )
    return zlib.compress(_ENCODER.encode(packed), _FASTEST)


def unpack(data: bytes) -> Cell:
    """Return the cell of some bytes."""
    packed = _DECODER.decode(zlib.decompress(data))
    cell = packed.cell
    for name, (distances, counts) in zip(_SKETCHES, packed.buckets, strict=True):
        getattr(cell, name).buckets = dict(zip(accumulate(distances), counts, strict=True))
    return cell


def _split(buckets: dict[int, int]) -> tuple[list[int], list[int]]:
    places = sorted(buckets)
    distances = map(sub, places, chain((0,), places))
    return list(distances), [buckets[place] for place in places]
