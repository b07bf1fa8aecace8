"""Ends of very many calls as a day would bring them, the same for the same seed."""

import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from calls import open_writer
from pilotage.core.frames import Begun, Ended, Outcome, encode_frame
from pilotage.core.usage import Usage

CHUNK = 50_000
MINUTE_US = 60_000_000
_OUTCOMES = [Outcome.OK] * 95 + [
    Outcome.REFUSED,
    Outcome.UPSTREAM_ERROR,
    Outcome.UPSTREAM_CUT,
    Outcome.CLIENT_GONE,
    Outcome.DEADLINE,
]
_TENANTS = [f"ten_{number:02d}" for number in range(20)]
_WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(len(_TENANTS))))
_SERVED = [
    ("chat", "a", "ver_1", "smollm2"),
    ("chat", "b", "ver_2", "smollm2"),
    ("code", "a", "", "gpt"),
]


def make_chunks(
    seed: int, count: int, start_us: int, span_us: int = 10 * MINUTE_US
) -> Iterator[list[Ended]]:
    """Yield ``count`` ends in chunks, in the order of time from ``start_us`` over ``span_us``."""
    dice = random.Random(seed)
    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        tenants = dice.choices(_TENANTS, cum_weights=_WEIGHTS, k=len(numbers))
        yield [
            make_end(dice, number, start_us + number * span_us // count, tenant)
            for number, tenant in zip(numbers, tenants, strict=True)
        ]


def make_end(dice: random.Random, number: int, at_us: int, tenant_id: str) -> Ended:
    """Return the end of a call; how long it took is log-normal, most are streams."""
    pick = dice.random()
    alias, arm, version_id, model = _SERVED[int(pick * 3)]
    duration_us = int(dice.lognormvariate(13.0, 0.9))
    output = int(pick * 800)
    outcome = _OUTCOMES[number % 100]
    return Ended(
        call_id=f"call_{number:026d}",
        at_us=at_us,
        project_id="prj",
        tenant_id=tenant_id,
        key_id=tenant_id,
        alias=alias,
        outcome=outcome,
        status=200,
        usage=Usage(int(pick * 3000), 0, 0, output, 0),
        cost_nano=output * 600,
        is_estimated=False,
        duration_us=duration_us,
        ttft_us=duration_us // 3 if number % 4 else -1,
        chunks=output,
        attempts=1,
        arm=arm,
        version_id=version_id,
        model=model,
        code="" if outcome is Outcome.OK else outcome.value,
        finish_reason="stop",
        snapshot_n=1,
        trace_id=f"{number:032x}",
        queue_us=0,
    )


def write_spool(root: Path, gateway: str, ends: Iterator[list[Ended]], *, begins: bool) -> int:
    """Write calls to a gateway's spool, as they begin and end or only as they end.

    Returns how many frames that were.
    """
    written = 0
    with open_writer(root, gateway, segment_bytes=64 << 20) as spool:
        for chunk in ends:
            for ended in chunk:
                if begins:
                    spool.append(encode_frame(begin(ended)))
                spool.append_end(encode_frame(ended))
            written += len(chunk) * (1 + begins)
    return written


def begin(ended: Ended) -> Begun:
    """Return how a call had begun."""
    return Begun(
        call_id=ended.call_id,
        at_us=ended.at_us - ended.duration_us,
        project_id=ended.project_id,
        tenant_id=ended.tenant_id,
        key_id=ended.key_id,
        alias=ended.alias,
        wire="chat",
        is_stream=True,
        worst_nano=10**6,
        snapshot_n=ended.snapshot_n,
        trace_id=ended.trace_id,
    )
