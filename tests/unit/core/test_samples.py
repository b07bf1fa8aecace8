"""Records of samples: round trips, and what is none."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.samples import (
    SAMPLE_VERSION,
    Sampled,
    Texts,
    decode_sample,
    decode_texts,
    encode_sample,
    encode_texts,
)

TEXTS = st.text(max_size=9)
SAMPLED = st.builds(
    Sampled,
    v=st.just(SAMPLE_VERSION),
    sample_id=TEXTS,
    call_id=TEXTS,
    at_us=st.integers(0, 2**62),
    project_id=TEXTS,
    tenant_id=TEXTS,
    alias=TEXTS,
    version_id=TEXTS,
    model=TEXTS,
    letter=st.binary(max_size=9),
)


@given(SAMPLED)
def test_a_sample_is_read_back(sample: Sampled) -> None:
    assert decode_sample(encode_sample(sample)) == sample


@given(st.dictionaries(TEXTS, TEXTS), TEXTS)
def test_texts_are_read_back_and_equal_ones_have_equal_bytes(
    body: dict[str, str], said: str
) -> None:
    plain = encode_texts(Texts(body=body, answer=said))
    assert decode_texts(plain) == Texts(body=body, answer=said)
    turned = dict(reversed(body.items()))
    assert encode_texts(Texts(body=turned, answer=said)) == plain


def test_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="not a sample"):
        decode_sample(b"nothing")
    with pytest.raises(ValueError, match="not the texts"):
        decode_texts(b"[]")
    newer: list[object] = msgspec.msgpack.decode(
        encode_sample(
            Sampled(
                sample_id="smp_1",
                call_id="call_1",
                at_us=1,
                project_id="prj",
                tenant_id="ten",
                alias="chat",
                version_id="ver",
                model="m",
                letter=b"",
            )
        )
    )
    newer[1] = SAMPLE_VERSION + 1
    with pytest.raises(ValueError, match="is newer"):
        decode_sample(msgspec.msgpack.encode(newer))
