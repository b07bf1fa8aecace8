"""Object ids: a prefix that says the kind, then a UUIDv7 in base32 (``key_01jd8...``).

Layout of the 128 bits after RFC 9562 section 5.7; the text is base32hex (RFC 4648 section 7,
lower case, no padding), whose order is the order of the bytes, so ids sort by time.
"""

_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_TRIPLES = [a + pair for a in _ALPHABET for pair in _PAIRS]
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_TEXT_LENGTH = 26


def make_id(prefix: str, now_us: int, randomness: bytes) -> str:
    """Make ``prefix_<uuid7>`` from a time in microseconds UTC and 10 random bytes."""
    return f"{prefix}_{encode_uuid(make_uuid7(now_us, randomness))}"


def make_uuid7(now_us: int, randomness: bytes) -> int:
    """Return a UUIDv7 as a 128-bit integer; of the 10 bytes of ``randomness`` 74 bits are used."""
    noise = int.from_bytes(randomness[:10], "big")
    rand_a = noise & 0xFFF
    rand_b = (noise >> 12) & 0x3FFF_FFFF_FFFF_FFFF
    millis = (now_us // 1000) & 0xFFFF_FFFF_FFFF
    return (millis << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b


def encode_uuid(value: int) -> str:
    """Write a 128-bit integer as 26 base32hex letters."""
    bits = value << 2  # 130 bits are 26 letters of 5 bits; three letters are looked up at once
    return (
        f"{_TRIPLES[bits >> 115]}{_TRIPLES[bits >> 100 & 32767]}{_TRIPLES[bits >> 85 & 32767]}"
        f"{_TRIPLES[bits >> 70 & 32767]}{_TRIPLES[bits >> 55 & 32767]}"
        f"{_TRIPLES[bits >> 40 & 32767]}{_TRIPLES[bits >> 25 & 32767]}"
        f"{_TRIPLES[bits >> 10 & 32767]}{_PAIRS[bits & 1023]}"
    )


def decode_uuid(object_id: str) -> int:
    """Return the 128 bits of an id made here; raise ValueError for anything else."""
    text = object_id.rpartition("_")[2]
    if len(text) != _TEXT_LENGTH:
        raise ValueError(f"not an id: {object_id!r}")
    bits = 0
    for letter in text:
        value = _VALUES.get(letter)
        if value is None:
            raise ValueError(f"not an id: {object_id!r}")
        bits = (bits << 5) | value
    if bits & 3:  # 26 letters have two bits more than a UUID; they are zero
        raise ValueError(f"not an id: {object_id!r}")
    return bits >> 2


def uuid_bytes(object_id: str) -> bytes:
    """Return the 16 raw bytes of an id, as key tables store it."""
    return decode_uuid(object_id).to_bytes(16, "big")


def id_from_bytes(prefix: str, raw: bytes) -> str:
    """Rebuild an id from its 16 raw bytes."""
    return f"{prefix}_{encode_uuid(int.from_bytes(raw, 'big'))}"
