"""Count what a spool holds by the bytes alone, sharing no code with the program."""

import struct
import zlib
from pathlib import Path


def read_raw(folder: Path) -> tuple[list[tuple[int, bytes]], dict[str, bytes]]:
    """Return every whole record in order of segments, and per segment the bytes that are none."""
    records: list[tuple[int, bytes]] = []
    torn: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.seg")):
        data = path.read_bytes()
        while len(data) >= 16:
            seq, length, check = struct.unpack("<QII", data[:16])
            payload = data[16 : 16 + length]
            if len(payload) < length or zlib.crc32(data[:8] + payload) != check:
                break
            records.append((seq, payload))
            data = data[16 + length :]
        if data:
            torn[path.name] = data
    return records, torn
