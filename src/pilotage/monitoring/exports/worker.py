"""Sends the numbers of an installation to a collector, again and again."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx
import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.exports.otlp import encode_metrics
from pilotage.monitoring.exports.types import Family

TIMEOUT_S = 10.0
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one process tells; ``since_us`` is when its counters began, if that is known."""

    process: str
    instance: str
    families: Iterable[Family]
    since_us: int | None = None


class MetricSender:
    """Sends what ``collect`` finds to an OTLP address every ``every_s`` seconds.

    Numbers are as they are when they are sent: while a collector is away none are kept for it. A
    failure is raised, for the worker to say once and to try again before the next time; what
    is refused of one process keeps nobody else's from being sent.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        collect: Callable[[], Awaitable[list[Told]]],
        clock: Clock,
        every_s: float,
    ) -> None:
        self._url = f"{url.rstrip('/')}/v1/metrics"
        self._headers = {"content-type": "application/json", "content-encoding": "gzip", **headers}
        self._collect = collect
        self._clock = clock
        self._every_s = every_s
        self._due_s = clock.monotonic_s() + every_s
        self.sent = 0

    async def step(self) -> bool:
        """Send what every process tells, when it is time."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return False
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
            sending = [self._send(http, told) for told in await self._collect()]
            for failed in filter(None, await asyncio.gather(*sending, return_exceptions=True)):
                raise failed
        self._due_s = now_s + self._every_s
        return False

    async def _send(self, http: httpx.AsyncClient, told: Told) -> None:
        resource = {"service.name": told.process, "service.instance.id": told.instance}
        plain = encode_metrics(told.families, resource, told.since_us, self._clock.now_us())
        body = gzip.compress(plain, 1)
        try:
            reply = await http.post(self._url, content=body, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as failed:
            raise _away(str(failed) or type(failed).__name__) from None
        if not reply.is_success:
            raise _away(f"status {reply.status_code}")
        _check_taken(reply.content)
        self.sent += 1


def make_sender_worker(sender: MetricSender) -> Worker:
    """Make the worker."""
    return Worker("otlp-metrics", sender.step, Wakeup(), LOOK_EVERY_S)


class _Partial(msgspec.Struct):
    rejectedDataPoints: int | str = 0  # noqa: N815 - as the format has it
    errorMessage: str = ""  # noqa: N815


class _Answer(msgspec.Struct):
    partialSuccess: _Partial = msgspec.field(default_factory=_Partial)  # noqa: N815


def _check_taken(answer: bytes) -> None:
    """Raise if a collector says that it left numbers out; what it says otherwise is its own."""
    try:
        partial = msgspec.json.decode(answer or b"{}", type=_Answer).partialSuccess
        rejected = int(partial.rejectedDataPoints)
    except (msgspec.DecodeError, ValueError):
        return
    if rejected > 0:
        raise _away(f"{rejected} numbers were not taken: {partial.errorMessage[:200]}")


def _away(reason: str) -> PilotageError:
    return PilotageError(
        "unavailable",
        f"The collector did not take the metrics: {reason}.",
        hint="Check telemetry.otlp_url; telemetry.metrics_every: 0s sends no metrics.",
    )
