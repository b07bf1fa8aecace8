"""``pilotage chat``: talk to a model through the gateway, as an application would."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.cli.session import note, say
from pilotage.core.errors import CATALOGUE, PilotageError
from pilotage.kit.clock import Clock, SystemClock
from pilotage.kit.config import load_settings
from pilotage.kit.data_folder import DataFolder
from pilotage.runtime.credentials import read_credentials

if TYPE_CHECKING:  # imported when there is somebody to talk to
    import httpx

HELP = "/help  this    /reset  forget what was said    /model NAME  another model    /quit  leave"
CONNECT_S = 5.0


def chat(
    message: Annotated[
        str | None, typer.Argument(metavar="[MESSAGE]", help="Ask this, and leave.")
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="The endpoint; default: the first there is.")] = "",
    system: Annotated[str, typer.Option(help="What the model is told beforehand.")] = "",
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 for the same answer every time.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
) -> None:
    """Talk to a model through the gateway. Ctrl-C stops an answer, Ctrl-D leaves.

    With a message, or with text on a pipe, it answers that and leaves.

    [bold]Examples[/bold]: pilotage chat
    |    pilotage chat --model smollm2 --temperature 0 "What is the capital of France?"
    |    pilotage chat < question.txt
    """
    folder = DataFolder(load_settings().data_path)
    server = folder.find_server()
    if server is None:
        raise PilotageError(
            "unavailable",
            "No server runs, so no model answers.",
            hint="Start it in another terminal: pilotage up",
        )
    options = {"temperature": temperature, "max_tokens": max_tokens}
    talk = Talk(
        url=f"{server.gateway_url}/v1",
        api_key=read_credentials(folder.credentials).api_key,
        model=model,
        system=system,
        options={name: value for name, value in options.items() if value is not None},
        clock=SystemClock(),
    )
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
        if not message:
            raise PilotageError("invalid_request", "There is nothing to ask on the pipe.")
    if not talk.model:
        talk.model = asyncio.run(talk.find_model())
    if message is None:
        _converse(talk)
    else:
        asyncio.run(talk.ask(message))


@dataclass(slots=True, kw_only=True)
class Talk:
    """A conversation: who answers, and what has been said."""

    url: str
    api_key: str
    model: str
    system: str
    options: dict[str, Any]
    clock: Clock
    said: list[dict[str, str]] = field(default_factory=list)

    async def find_model(self) -> str:
        """Return the first model there is; raise ``not_found`` if there is none."""
        async with self._connect() as http:
            reply = await _send(http, http.build_request("GET", f"{self.url}/models"))
            names = [entry["id"] for entry in reply.json()["data"]]
        if not names:
            raise PilotageError(
                "not_found", "No model can be called yet.", hint="See why: pilotage doctor"
            )
        return str(names[0])

    async def ask(self, text: str) -> None:
        """Say something and print the answer as it comes.

        Only an answer that comes to its end is remembered.
        """
        question = {"role": "user", "content": text}
        beginning = [{"role": "system", "content": self.system}] if self.system else []
        body = self.options | {
            "model": self.model,
            "messages": [*beginning, *self.said, question],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started_s = self.clock.monotonic_s()
        answer, usage = "", None
        try:
            async for event in self._stream(body):
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    part = choice["delta"].get("content") or ""
                    answer += part
                    sys.stdout.write(part)
                    sys.stdout.flush()
        finally:
            if answer and not answer.endswith("\n"):
                sys.stdout.write("\n")
                sys.stdout.flush()
        self.said += [question, {"role": "assistant", "content": answer}]
        note(_describe(usage, self.clock.monotonic_s() - started_s))

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async with self._connect() as http:
            request = http.build_request("POST", f"{self.url}/chat/completions", json=body)
            reply = await _send(http, request)
            try:
                async for event in _read_events(reply):
                    yield event
            finally:
                await reply.aclose()

    def _connect(self) -> "httpx.AsyncClient":
        import httpx

        return httpx.AsyncClient(
            headers={"authorization": f"Bearer {self.api_key}", "x-pilotage-purpose": "chat"},
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )


def _converse(talk: Talk) -> None:
    """Read lines and answer them until the end of the input."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() its line editing

    note(f"Talking to {talk.model}. {HELP}")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            note("\nCtrl-D leaves.")
            continue
        if line == "/quit":
            return
        if line.startswith("/"):
            _obey(talk, line)
        elif line:
            _answer(talk, line)


def _answer(talk: Talk, line: str) -> None:
    try:
        asyncio.run(talk.ask(line))
    except KeyboardInterrupt:
        note("(stopped)")
    except PilotageError as failed:
        note(f"error: {failed.detail} {failed.hint}".rstrip())


def _obey(talk: Talk, line: str) -> None:
    word, _, rest = line.partition(" ")
    if word == "/reset":
        talk.said.clear()
        note("Forgotten.")
    elif word == "/model" and rest.strip():
        talk.model = rest.strip()
        note(f"Talking to {talk.model}.")
    else:
        note(HELP)


async def _send(http: "httpx.AsyncClient", request: "httpx.Request") -> "httpx.Response":
    """Send a request; return its reply with the body to come, or raise what the gateway said."""
    import httpx

    try:
        reply = await http.send(request, stream=request.method == "POST")
        if reply.is_error:
            await reply.aread()
    except httpx.HTTPError as failed:
        raise _unreachable(failed) from None
    if reply.is_error:
        try:
            content = reply.json()
        except json.JSONDecodeError:
            content = {}
        raise _error(content.get("error", {}), reply.status_code)
    return reply


async def _read_events(reply: "httpx.Response") -> AsyncIterator[dict[str, Any]]:
    """Return the events of a stream; raise if it breaks off or ends with an error."""
    import httpx

    try:
        async for line in reply.aiter_lines():
            data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
            if data == "[DONE]":
                return
            if data:
                event = json.loads(data)
                if "error" in event:
                    raise _error(event["error"], reply.status_code)
                yield event
    except httpx.HTTPError as failed:
        raise _unreachable(failed) from None
    raise PilotageError("upstream_cut", "The answer broke off.", hint="Ask again.")


def _unreachable(failed: Exception) -> PilotageError:
    reason = str(failed) or type(failed).__name__
    return PilotageError(
        "unavailable",
        f"The gateway does not answer: {reason}.",
        hint="It may be starting or stopping: try again, or look: pilotage doctor",
    )


def _error(error: dict[str, Any], status: int) -> PilotageError:
    code = error.get("code")
    hints = {
        "draining": "It is stopping. Start it again: pilotage up",
        "no_replica": "The model may still be loading: pilotage doctor",
        "invalid_api_key": "The key of credentials.toml may be revoked: pilotage keys list",
    }
    return PilotageError(
        code if code in CATALOGUE else "upstream_error",
        error.get("message") or f"The gateway answered with status {status}.",
        hint=hints.get(str(code), ""),
    )


def _describe(usage: dict[str, Any] | None, seconds: float) -> str:
    if usage is None:
        return f"[{seconds:.1f} s]"
    written = usage["completion_tokens"]
    return f"[{usage['prompt_tokens']} tokens in, {written} out, {seconds:.1f} s]"
