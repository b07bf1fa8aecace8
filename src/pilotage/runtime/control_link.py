"""The way from a gateway that runs apart to its control plane."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from pilotage.core.errors import CATALOGUE, PilotageError

TIMEOUT_S = 10.0
SHIP_TIMEOUT_S = 60.0


class ControlLink:
    """Calls of ``/api/v1/gateway``; failures come back as :class:`PilotageError`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def wait_manifest(self, after: int, wait_s: int) -> bytes | None:
        """Return the signed manifest once it is newer than a number; None if it is not in time."""
        reply = await self._ask(
            "GET",
            "snapshot",
            params={"after": str(after), "wait_s": str(wait_s)},
            timeout=httpx.Timeout(TIMEOUT_S, read=wait_s + TIMEOUT_S),
        )
        return None if reply.status_code == 204 else reply.content

    @asynccontextmanager
    async def open_section(self, sha256: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a section of a Snapshot."""
        async with stream(self._http, f"/api/v1/gateway/sections/{sha256}") as parts:
            yield parts

    async def find_seq(self, slot: str, epoch: str) -> int:
        """Return the last record of a spool that the control plane has."""
        return _read_seq(await self._ask("GET", f"spools/{slot}/{epoch}"))

    async def ship(
        self, slot: str, epoch: str, first_seq: int, records: bytes, *, is_lost_before: bool
    ) -> int:
        """Hand in compressed records; return the last one that is on disk there."""
        query = {"from_seq": str(first_seq)} | ({"lost_before": "1"} if is_lost_before else {})
        return _read_seq(
            await self._ask(
                "POST",
                f"spools/{slot}/{epoch}",
                params=query,
                content=records,
                timeout=SHIP_TIMEOUT_S,
            )
        )

    async def get_seeds(self, known: str) -> bytes | None:
        """Return what a store of counters is filled with; None if that is known by its SHA-256."""
        reply = await self._ask("GET", "counters", params={"known": known})
        return None if reply.status_code == 204 else reply.content

    async def report(self, slot: str, report: bytes) -> None:
        """Say which Snapshot a slot serves and how far its records have come."""
        await self._ask("PUT", f"acks/{slot}", content=report)

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        try:
            reply = await self._http.request(method, f"/api/v1/gateway/{path}", **more)
        except httpx.HTTPError as failed:
            raise explain_failure(failed) from None
        if not reply.is_success:
            raise explain_refusal(reply)
        return reply


@asynccontextmanager
async def stream(http: httpx.AsyncClient, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """Stream what an address holds; raise ``unavailable`` or what the other side says."""
    try:
        async with http.stream("GET", url) as reply:
            if not reply.is_success:
                await reply.aread()
                raise explain_refusal(reply)
            yield reply.aiter_bytes(1 << 18)
    except httpx.HTTPError as failed:
        raise explain_failure(failed) from None


def explain_failure(failed: httpx.HTTPError) -> PilotageError:
    """Say that nobody answered."""
    return PilotageError("unavailable", f"No answer: {str(failed) or type(failed).__name__}.")


def explain_refusal(reply: httpx.Response) -> PilotageError:
    """Return the error that a reply is."""
    try:
        problem = reply.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        problem = None
    if isinstance(problem, dict) and problem.get("code") in CATALOGUE:
        return PilotageError(problem["code"], str(problem.get("detail", "")))
    place = reply.url.copy_with(query=None)
    return PilotageError("unavailable", f"{place} answers with status {reply.status_code}.")


def _read_seq(reply: httpx.Response) -> int:
    try:
        seq = reply.json()["seq"]
    except (ValueError, KeyError, TypeError):
        seq = None
    if not isinstance(seq, int):
        raise PilotageError("unavailable", "What answers is no control plane.")
    return seq
