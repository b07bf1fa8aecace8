"""``HybridLLMClient``: the gateway's chain in this process, without HTTP.

Calls obey the same keys, limits and routes as everybody's, are recorded in the same frames and end
up in the same ledger. Local models are asked first, then OpenAI-compatible providers, then Vertex
AI, unless a cascade is given.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.resources import Held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from pilotage.gateway.client import ChainClient
    from pilotage.kit.config import Settings

_LOG = logging.getLogger("pilotage.sdk")
READY_WITHIN_S = 30.0
_RANK = {"": 0, "openai": 1, "anthropic": 2, "vertex": 3}  # local, then OpenAI, then Vertex AI


@dataclass(kw_only=True)
class HybridLLMConfig:
    """How the client finds its installation and in which order it asks.

    ``data_dir`` is the data folder (default: the settings'), ``api_key`` a key of it (default: the
    default tenant's), ``cascade`` names endpoints in the order in which they are asked (default:
    local models first, then OpenAI, then Vertex AI), ``model`` is the packaged model that is set up
    where there is no endpoint at all.
    """

    data_dir: str | None = None
    api_key: str | None = None
    cascade: list[str] = field(default_factory=list)
    model: str = "smollm2"


@dataclass(kw_only=True)
class _Tally:
    calls: int = 0
    failures: int = 0
    fallbacks: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0


class HybridLLMClient:
    """Completes text with whichever endpoint answers first in the cascade.

    The constructor does no I/O. The first awaited call finds the live server of the data folder, or
    starts one that ends with this client. Use ``async with``, or call :meth:`aclose`.
    """

    def __init__(self, config: HybridLLMConfig | dict[str, Any] | None = None) -> None:
        if isinstance(config, dict):
            config = HybridLLMConfig(**config)
        self._config = config or HybridLLMConfig()
        self._held = Held(lambda: _open_chain(self._config))
        self._tally = _Tally()

    async def __aenter__(self) -> Self:
        await self._held.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let running calls end and close everything this client opened."""
        await self._held.close()

    async def complete_text(
        self,
        prompt: str,
        system: str | None = None,
        temperature: float = 0.7,
        max_tokens: int = 2048,
    ) -> str:
        """Return the answer to a prompt.

        Endpoints are asked in the cascade's order, the next one when one fails for a reason of its
        own. Raises the last failure as PilotageError, or at once what is wrong with the
        request itself (``invalid_request``, ``invalid_api_key``, ``insufficient_quota``, ...).
        """
        chain = await self._held.open()
        self._tally.calls += 1
        failed: PilotageError | None = None
        for endpoint in self._order(chain):
            if failed is not None:
                self._tally.fallbacks += 1
                _LOG.warning("%s; asking %s", failed.detail, endpoint)
            body = _make_body(endpoint, prompt, system, temperature, max_tokens)
            try:
                reply = await chain.ask_chat(body)
            except PilotageError as error:
                failed = error
                if not _may_go_on(error):
                    break
                continue
            return self._take(endpoint, reply)
        self._tally.failures += 1
        raise failed or PilotageError(
            "model_not_found", "No endpoint answers.", hint="Set one up: pilotage init"
        )

    def get_metrics(self) -> dict[str, Any]:
        """Return what this client did: calls, failures, fallbacks, tokens, calls by endpoint."""
        tally = self._tally
        return {
            "calls": tally.calls,
            "failures": tally.failures,
            "fallbacks": tally.fallbacks,
            "input_tokens": tally.input_tokens,
            "output_tokens": tally.output_tokens,
            "calls_by_endpoint": dict(tally.by_endpoint),
        }

    def _order(self, chain: ChainClient) -> list[str]:
        if self._config.cascade:
            return self._config.cascade
        ranked = [
            (min((_RANK.get(provider, 0) for provider in providers), default=0), name)
            for name, providers in chain.list_endpoints()
        ]
        return [name for _, name in sorted(ranked)]

    def _take(self, endpoint: str, reply: bytes) -> str:
        completion = msgspec.json.decode(reply, type=_Completion)
        tally = self._tally
        tally.by_endpoint[endpoint] = tally.by_endpoint.get(endpoint, 0) + 1
        tally.input_tokens += completion.usage.prompt_tokens
        tally.output_tokens += completion.usage.completion_tokens
        return completion.choices[0].message.content or "" if completion.choices else ""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage = msgspec.field(default_factory=_Usage)


def _may_go_on(error: PilotageError) -> bool:
    """Whether another endpoint may answer what this one did not."""
    return error.status >= 500 or error.code in {"model_not_found", "no_allowed_target"}


def _make_body(
    endpoint: str, prompt: str, system: str | None, temperature: float, max_tokens: int
) -> bytes:
    messages = [{"role": "system", "content": system}] if system else []
    return msgspec.json.encode(
        {
            "model": endpoint,
            "messages": [*messages, {"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
    )


@asynccontextmanager
async def _open_chain(config: HybridLLMConfig) -> AsyncIterator[ChainClient]:
    from pilotage.kit.config import load_settings
    from pilotage.kit.data_folder import DataFolder
    from pilotage.runtime.credentials import read_credentials
    from pilotage.runtime.in_process import open_in_process

    settings = load_settings()
    if config.data_dir is not None:
        settings = msgspec.structs.replace(settings, data_dir=config.data_dir)
    folder = DataFolder(Path(settings.data_path))
    async with AsyncExitStack() as stack:
        if folder.find_server() is None:
            await stack.enter_async_context(_run_server(settings, config.model))
        api_key = config.api_key or read_credentials(folder.credentials).api_key
        opening = open_in_process(settings, folder, api_key, READY_WITHIN_S)
        yield await stack.enter_async_context(opening)


@asynccontextmanager
async def _run_server(settings: Settings, model: str) -> AsyncIterator[None]:
    """Run a server of the data folder, on free ports, with a model that answers."""
    from pilotage.sdk.control import open_control
    from pilotage.sdk.first_model import fetch_model, serve_model, wait_ready
    from pilotage.sdk.planes import run_server

    async with run_server(settings):
        async with open_control(settings) as api:
            names = [endpoint["name"] async for endpoint in api.list("/endpoints")]
            if not names:
                await serve_model(api, model, await fetch_model(api, model))
            for name in names:
                await wait_ready(api, name)
        yield
