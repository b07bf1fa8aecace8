"""The failure laboratory: every fault, what each SDK sees of it, what is billed, what is logged.

    python tests/support/failure_lab.py        run all of it and print the table

Each fault is provoked through a real gateway process and the real ``openai`` and ``anthropic``
packages. ``docs/reference/failures.md`` holds the table; a test runs every fault again and
compares.
"""

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai

from gateway_cases import Serving, serve_world
from gateway_harness import until
from made_calls import make_arm
from pilotage.core.frames import Begun, Ended
from pilotage.core.snapshot import AliasEntry, Routing
from stub_upstream import free_port

SETTINGS = {
    "gateway": {
        "call_timeout": "2s",
        "stall_timeout": "300ms",
        "reader_timeout": "300ms",
        "drain_timeout": "30s",
        "connect_timeout": "500ms",
    }
}
_VARIABLE = re.compile(
    r"/\S+|\d+(?:\.\d+){3}:\d+|dep_\S+?(?:\.\d+)?(?=[:,. ]|$)|[a-z]+_[0-9a-v]{26}|\d+"
)
ONCE_A_MINUTE = "calls fail"  # of each kind: whether a case has it depends on those before
LIMIT = 64  # tokens that the calls ask for
SLOW = {"chunks": 1000, "delay_ms": 20}
AFTER_TEXT = {"delay_ms": 150}  # so long that the text before the fault has arrived, however busy


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of the upstream: the plan that provokes it, for plain calls, streams or both.

    ``is_closed``: nobody listens at its address.
    """

    name: str
    plan: dict[str, Any] = field(default_factory=dict)
    is_plain: bool = True
    is_stream: bool = True
    is_closed: bool = False


FAULTS = (
    Fault(name="none"),
    Fault(name="refuses the connection", is_closed=True),
    Fault(name="resets before its headers", plan={"fault": "refuse"}),
    Fault(name="closes before its headers", plan={"fault": "cut_before_headers"}),
    Fault(name="never answers", plan={"fault": "hang_before_headers"}),
    Fault(name="stalls within its answer", plan={"fault": "stall_mid_stream"}),
    Fault(name="trickles", plan={"fault": "trickle"}, is_plain=False),
    Fault(name="is slower than the deadline", plan=SLOW, is_plain=False),
    Fault(name="cuts within its answer", plan={"fault": "cut_mid_stream"}),
    Fault(name="resets within its answer", plan={"fault": "rst_mid_stream", **AFTER_TEXT}),
    Fault(
        name="cuts after the finish reason",
        plan={"fault": "cut_after_finish", **AFTER_TEXT},
        is_plain=False,
    ),
    Fault(
        name="ends without the terminator", plan={"fault": "no_done", **AFTER_TEXT}, is_plain=False
    ),
    Fault(
        name="sends an error in the stream",
        plan={"fault": "error_in_stream", **AFTER_TEXT},
        is_plain=False,
    ),
    Fault(
        name="sends garbage in the stream",
        plan={"fault": "garbage_chunk", **AFTER_TEXT},
        is_plain=False,
    ),
    Fault(name="sends a body that is no JSON", plan={"fault": "garbage_body"}, is_stream=False),
    Fault(
        name="breaks the chunked framing",
        plan={"fault": "garbage_framing", **AFTER_TEXT},
        is_plain=False,
    ),
    Fault(name="speaks another protocol", plan={"fault": "garbage_head"}),
    Fault(name="sends headers without end", plan={"fault": "endless_head"}),
    Fault(
        name="answers 429 with retry-after",
        plan={"fault": "status", "status": 429, "retry_after": 7},
    ),
    Fault(name="answers 429 without retry-after", plan={"fault": "status", "status": 429}),
    Fault(name="answers 500", plan={"fault": "status", "status": 500}),
    Fault(name="answers 503", plan={"fault": "status", "status": 503}),
    Fault(name="answers 401", plan={"fault": "status", "status": 401}),
    Fault(name="answers 404", plan={"fault": "status", "status": 404}),
    Fault(name="answers 302", plan={"fault": "status", "status": 302}),
    Fault(
        name="answers 400 about the request",
        plan={
            "fault": "status",
            "status": 400,
            "body": {
                "error": {"message": "temperature is too high", "type": "invalid_request_error"}
            },
        },
    ),
    Fault(
        name="answers 400: prompt too long",
        plan={
            "fault": "status",
            "status": 400,
            "body": {
                "error": {
                    "message": "too many tokens",
                    "type": "invalid_request_error",
                    "code": "context_length_exceeded",
                }
            },
        },
    ),
    Fault(name="answers the wrong model", plan={"fault": "wrong_model"}),
    Fault(name="lies about usage", plan={"fault": "lie_usage"}),
    Fault(name="ignores the output limit", plan={"completion_tokens": 100 * LIMIT}),
)


class Row(NamedTuple):
    """One line of the table."""

    fault: str
    call: str
    openai: str
    anthropic: str
    outcome: str
    billed: str
    logged: str

    def __str__(self) -> str:
        """Return the line as Markdown."""
        return f"| {' | '.join(self)} |"


HEADER = Row(
    "the upstream ...",
    "call",
    "`openai` sees",
    "`anthropic` sees",
    "outcome",
    "billed",
    "logged",
)


@asynccontextmanager
async def open_lab(folder: Path) -> AsyncIterator[Serving]:
    """Open the laboratory: a gateway with short time limits in front of a faulty upstream."""
    async with serve_world(folder, SETTINGS) as serving:
        publish_cases(serving)
        await serving.gateway.wait_serving(serving.world.n)
        yield serving


def publish_cases(serving: Serving) -> None:
    """Give every case a model of its own for each SDK, so that none opens another's breaker."""
    world, aliases, ports = serving.world, [], {}
    closed = free_port()
    for fault, is_stream in list_cases():
        for sdk in SDKS:
            name = name_model(fault, sdk, is_stream=is_stream)
            ports[f"dep_{name}"] = closed if fault.is_closed else serving.upstream.port
            arm = make_arm(f"dep_{name}")
            alias = AliasEntry(
                project_id=world.tenant.project_id,
                name=name,
                created_at_us=0,
                salt="salt",
                max_output_tokens=LIMIT,
                arms=[arm],
                routing=Routing(retries=0),
            )
            aliases.append(alias)
    world.point(ports)
    world.publish(more_aliases=aliases)


def name_model(fault: Fault, sdk: str, *, is_stream: bool) -> str:
    """Return the model name of a case."""
    kind = "stream" if is_stream else "plain"
    return re.sub(r"[^a-z0-9]+", "-", f"{fault.name} {kind} {sdk}".lower())


async def run_fault(serving: Serving, fault: Fault, *, is_stream: bool) -> Row:
    """Provoke a fault through both SDKs and return what came of it.

    Raises AssertionError unless each call has one Begun and one Ended, and both were told and
    billed the same.
    """
    content = json.dumps({"fault": "none", **fault.plan})
    seen, ends = [], []
    logged = len(serving.gateway.log())
    for sdk, look in SDKS.items():
        before = set(serving.world.ends_by_call())
        model = name_model(fault, sdk, is_stream=is_stream)
        seen.append(await look(serving, model, content, is_stream))
        ends.append(await take_end(serving, before))
    first, second = ends
    bills = [describe_bill(end) for end in ends]
    assert (first.outcome, bills[0]) == (second.outcome, bills[1]), f"{first}\n{second}"
    return Row(
        fault.name,
        "stream" if is_stream else "plain",
        seen[0],
        seen[1],
        describe_outcome(first),
        bills[0],
        describe_log(serving.gateway.log()[logged:]),
    )


async def take_end(serving: Serving, before: set[str]) -> Ended:
    """Return the one end of the one call that began since."""
    found: list[Ended] = []

    def has_ended() -> bool:
        calls = {
            call: ends for call, ends in serving.world.ends_by_call().items() if call not in before
        }
        assert len(calls) <= 1, f"{len(calls)} calls began"
        found[:] = [end for ends in calls.values() for end in ends]
        return bool(found)

    await until(has_ended, "the end of the call")
    (end,) = found
    begun = [f for f in serving.world.frames() if isinstance(f, Begun) and f.call_id == end.call_id]
    assert len(begun) == 1
    return end


async def look_with_openai(serving: Serving, model: str, content: str, is_stream: bool) -> str:
    """Make the call with the openai package; return what its user sees."""
    async with openai.AsyncOpenAI(
        base_url=f"{serving.gateway.url}/v1",
        api_key=serving.world.secret,
        max_retries=0,
        timeout=20,
    ) as client:
        contents: list[str] = []
        try:
            if is_stream:
                stream = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": content}],
                    max_tokens=LIMIT,
                    stream=True,
                )
                async for chunk in stream:
                    assert chunk.model == model
                    contents += [c.delta.content for c in chunk.choices if c.delta.content]
            else:
                answer = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": content}],
                    max_tokens=LIMIT,
                )
                assert answer.model == model
                contents = [answer.choices[0].message.content or ""]
        except openai.APIError as error:
            return describe_error(error, error.code or "", contents)
        return describe_answer(contents)


async def look_with_anthropic(serving: Serving, model: str, content: str, is_stream: bool) -> str:
    """Make the same call with the anthropic package."""
    async with anthropic.AsyncAnthropic(
        base_url=serving.gateway.url, api_key=serving.world.secret, max_retries=0, timeout=20
    ) as client:
        contents: list[str] = []
        try:
            if is_stream:
                async with client.messages.stream(
                    model=model, max_tokens=LIMIT, messages=[{"role": "user", "content": content}]
                ) as stream:
                    async for text in stream.text_stream:
                        contents.append(text)  # noqa: PERF401 - what came before an error counts
            else:
                answer = await client.messages.create(
                    model=model, max_tokens=LIMIT, messages=[{"role": "user", "content": content}]
                )
                assert answer.model == model
                contents = [block.text for block in answer.content if block.type == "text"]
        except anthropic.APIError as error:
            return describe_error(error, error_type(error), contents)
        return describe_answer(contents)


def error_type(error: anthropic.APIError) -> str:
    """Return the type that an Anthropic error names."""
    body = error.body
    inside = body.get("error") if isinstance(body, dict) else None
    return str(inside.get("type", "")) if isinstance(inside, dict) else ""


def describe_answer(contents: list[str]) -> str:
    """Say that there was an answer."""
    return "the answer" if "".join(contents).strip() else "an empty answer"


def describe_error(error: Exception, code: str, contents: list[str]) -> str:
    """Say which exception came, after how much."""
    status = getattr(error, "status_code", None)
    wait = ""
    if status is not None:
        wait = getattr(error, "response").headers.get("retry-after", "")  # noqa: B009 - both SDKs
    parts = [f"`{type(error).__name__}`", str(status or ""), f"`{code}`" if code else ""]
    parts.append(f"retry after {wait} s" if wait else "")
    said = " ".join(part for part in parts if part)
    return f"text, then {said}" if contents else said


def describe_outcome(end: Ended) -> str:
    """Say how the call is on record."""
    return f"`{end.outcome.value}`" + (f" `{end.code}`" if end.code else "")


def describe_bill(end: Ended) -> str:
    """Say what is charged, and what was noted beside it."""
    bill = "estimate" if end.is_estimated else "as reported"
    if end.cost_nano == 0:
        bill = "nothing"
    return ", ".join([bill, *(f"`{flag}`" for flag in end.flags)])


def describe_log(text: str) -> str:
    """Say what the gateway logged above info: what each line says before its details."""
    messages = set()
    for line in text.splitlines():
        entry = json.loads(line)
        if entry["level"] != "info" and not entry["message"].startswith(ONCE_A_MINUTE):
            messages.add(_VARIABLE.sub("…", entry["message"].partition(": ")[0]))
    return "; ".join(sorted(messages)) or "nothing"


SDKS: dict[str, Callable[[Serving, str, str, bool], Awaitable[str]]] = {
    "openai": look_with_openai,
    "anthropic": look_with_anthropic,
}


def list_cases() -> list[tuple[Fault, bool]]:
    """Return every fault with each kind of call that it has, False for plain."""
    return [
        (fault, is_stream)
        for fault in FAULTS
        for is_stream in (False, True)
        if (fault.is_stream if is_stream else fault.is_plain)
    ]


PAGE = """\
# What happens when something fails

Every fault below is provoked in the tests, through a real gateway process and the real `openai` and
`anthropic` packages, and this table is compared with what comes of it. The calls ask a model whose
answer has five pieces of text; time limits are shortened (a call may take 2 s, a silence 0.3 s).
*Outcome* is what the call's `Ended` frame says, with the error's code; each call has exactly one
`Begun` and one `Ended`. *Billed as reported* is the upstream's own usage, an *estimate* is made
from what was sent and received and marked as one. No fault is retried here: the alias has one
target and no retries. *Logged* leaves out that each kind of failure is said once a minute.

"""


AROUND = """
## Clients that misbehave, and what fails around a gateway

Limits are closed when the store that counts them is away (`on_store_loss`), except for what this
process has leased of them before.

"""


async def run_all(look: Callable[[Row], object]) -> None:
    """Run every fault, each row as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_lab(Path(folder)) as serving:
            for fault, is_stream in list_cases():
                look(await run_fault(serving, fault, is_stream=is_stream))


def read_rows(page: Path) -> list[str]:
    """Return the lines of the page's tables."""
    lines = page.read_text().splitlines()
    return [line for line in lines if line.startswith("| ") and "sees |" not in line]


async def write_page(show: Callable[[object], None]) -> None:
    """Run everything and hand on the page's lines as they come."""
    from failure_lab_around import HEADER as AROUND_HEADER
    from failure_lab_around import run_around

    show(PAGE + f"{HEADER}\n{'|---' * len(HEADER)}|")
    await run_all(show)
    show(AROUND + f"{AROUND_HEADER}\n{'|---' * len(AROUND_HEADER)}|")
    with tempfile.TemporaryDirectory() as folder:
        async for row in run_around(Path(folder)):
            show(row)


if __name__ == "__main__":
    asyncio.run(write_page(lambda line: print(line, flush=True)))
