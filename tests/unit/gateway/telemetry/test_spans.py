"""Spans of a call and its attempts: whom they name, when they are kept, and what they never say."""

import pytest

from made_calls import PROJECT, make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import UpstreamEntry
from pilotage.core.usage import Usage
from pilotage.gateway.call import Call, Try
from pilotage.gateway.telemetry.spans import MAX_WAITING, Span, Tracer
from pilotage.kit.clock import ManualClock

FIRST = make_arm("dep_a", upstream_id="ups_a", upstream_model="gpt-5")
SECOND = make_arm("dep_b", upstream_id="ups_b", upstream_model="claude-9")
UPSTREAMS = [
    UpstreamEntry(
        id="ups_a", project_id=PROJECT, name="a", provider="openai", base_url="https://one.test/v1"
    ),
    UpstreamEntry(
        id="ups_b",
        project_id=PROJECT,
        name="b",
        provider="vertex",
        base_url="http://two.test:9000/v1",
    ),
]


def make_traced(**more: object) -> Call:
    alias = make_alias(FIRST, SECOND)
    call = make_call(alias, view=make_view(alias, upstreams=UPSTREAMS))
    call.arm, call.asked_s, call.started_s, call.ended_s = SECOND, 0.4, 0.0, 1.0
    for name, value in more.items():
        setattr(call, name, value)
    return call


def trace(call: Call, *, share: float = 1.0) -> list[Span]:
    tracer = Tracer(ManualClock(), share=share, slow_s=10.0)
    tracer.end(call, tracer.begin(call))
    return tracer.take(100)


async def test_each_attempt_names_whom_it_asked() -> None:
    call = make_traced(tries=[Try("dep_a", 0.1, 0.2, "upstream_error")])
    _, first, second = trace(call)
    assert first.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "server.address": "one.test",
        "server.port": 443,
        "error.type": "upstream_error",
        "pilotage.arm": "dep_a",
    }
    assert second.attributes["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert (second.attributes["server.address"], second.attributes["server.port"]) == (
        "two.test",
        9000,
    )
    assert "error.type" not in second.attributes
    assert (first.ended_us - first.began_us, second.ended_us - second.began_us) == (
        200_000,
        600_000,
    )


async def test_an_answer_that_was_cut_after_a_retry_is_an_attempt_too() -> None:
    call = make_traced(
        tries=[Try("dep_a", 0.1, 0.2, "upstream_error")],
        outcome=Outcome.UPSTREAM_CUT,
        error=PilotageError("upstream_cut"),
    )
    assert [span.error for span in trace(call)] == [
        "upstream_cut",
        "upstream_error",
        "upstream_cut",
    ]


async def test_an_attempt_that_failed_at_last_is_told_once() -> None:
    call = make_traced(
        arm=FIRST,
        asked_s=0.11,
        tries=[Try("dep_a", 0.1, 0.2, "upstream_error")],
        outcome=Outcome.UPSTREAM_ERROR,
        error=PilotageError("upstream_error"),
    )
    assert len(trace(call)) == 2


async def test_what_nobody_published_is_not_repeated() -> None:
    body = b'{"model":"the client may say anything","messages":[{"role":"user","content":"x"}]}'
    call = make_call(None, view=make_view(), body=body)
    call.outcome, call.error = Outcome.REFUSED, PilotageError("model_not_found")
    (span,) = trace(call)
    assert "anything" not in str(span)
    assert span.name == "chat unknown"


async def test_input_tokens_include_what_came_from_a_cache() -> None:
    call = make_traced(usage=Usage(10, 20, 30, 4, 5), is_sent=True)
    said = trace(call)[0].attributes
    assert said["gen_ai.usage.input_tokens"] == 60
    assert said["gen_ai.usage.cache_read.input_tokens"] == 20
    assert said["gen_ai.usage.cache_creation.input_tokens"] == 30
    assert said["gen_ai.usage.output_tokens"] == 9
    assert said["gen_ai.usage.reasoning.output_tokens"] == 5


@pytest.mark.parametrize(
    ("outcome", "lasted_s", "is_kept"),
    [
        (Outcome.OK, 9.9, False),
        (Outcome.OK, 10.0, True),
        (Outcome.REFUSED, 0.1, False),
        (Outcome.CLIENT_GONE, 0.1, False),
        (Outcome.UPSTREAM_ERROR, 0.1, True),
        (Outcome.DEADLINE, 0.1, True),
        (Outcome.INTERNAL_ERROR, 0.1, True),
    ],
)
async def test_what_failed_or_was_slow_is_kept_though_not_sampled(
    outcome: Outcome, lasted_s: float, is_kept: bool
) -> None:
    call = make_traced(outcome=outcome, ended_s=lasted_s)
    assert bool(trace(call, share=0.0)) == is_kept


async def test_waiting_spans_are_bounded_and_the_rest_is_counted() -> None:
    tracer = Tracer(ManualClock(), share=1.0, slow_s=10.0)
    call = make_traced(asked_s=0.0)
    context = tracer.begin(call)
    for _ in range(MAX_WAITING + 7):
        tracer.end(call, context)
    assert (len(tracer.waiting), tracer.dropped) == (MAX_WAITING, 7)


async def test_dropped_spans_are_counted_with_their_attempts() -> None:
    tracer = Tracer(ManualClock(), share=1.0, slow_s=10.0, has_room=lambda: False)
    call = make_traced(tries=[Try("dep_a", 0.1, 0.2, "upstream_error")])
    tracer.end(call, tracer.begin(call))
    assert (tracer.take(100), tracer.dropped) == ([], 3)


async def test_a_call_finds_room_with_all_its_attempts_or_not_at_all() -> None:
    tracer = Tracer(ManualClock(), share=1.0, slow_s=10.0)
    call = make_traced(tries=[Try("dep_a", 0.1, 0.2, "upstream_error")])
    context = tracer.begin(call)
    for _ in range(MAX_WAITING):
        tracer.end(call, context)
    kept = len(tracer.waiting)
    assert kept % 3 == 0
    assert MAX_WAITING - 3 < kept <= MAX_WAITING
    assert kept + tracer.dropped == MAX_WAITING * 3
