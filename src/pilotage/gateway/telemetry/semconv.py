"""Our facts under OpenTelemetry's names: the one place that knows them.

Names: OpenTelemetry semantic conventions for generative AI (status "development"). Input tokens
there include what came from or went into a cache; ours are disjoint.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pilotage.core.money import format_usd
from pilotage.core.snapshot import ArmEntry, UpstreamEntry
from pilotage.gateway.bill import bill_call
from pilotage.gateway.call import Call

OPERATIONS = {
    "chat": "chat",
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "vertex": "gcp.vertex_ai"}
LOCAL = "pilotage"
UNKNOWN = "unknown"


def find_provider(call: Call) -> str:
    """Return OpenTelemetry's name of who answers the call's arm."""
    upstream = _find_upstream(call, call.arm)
    return PROVIDERS.get(upstream.provider, upstream.provider) if upstream else LOCAL


def name_model(call: Call) -> str:
    """Return the alias that was asked for; what nobody published is the client's text, not ours."""
    return call.alias_name if call.alias is not None else UNKNOWN


# Attribute: how it is read from a call that has ended. None, "" and () are left out.
ATTRIBUTES: Mapping[str, Callable[[Call], Any]] = {
    "gen_ai.operation.name": lambda call: OPERATIONS.get(call.wire.name, call.wire.name),
    "gen_ai.provider.name": find_provider,
    "gen_ai.request.model": name_model,
    "gen_ai.request.stream": lambda call: bool(call.request.stream),
    "gen_ai.response.model": lambda call: call.answered_by,
    "gen_ai.response.finish_reasons": lambda call: (
        [call.finish_reason] if call.finish_reason else ()
    ),
    "gen_ai.response.time_to_first_chunk": lambda call: (
        call.ttft_us / 1e6 if call.ttft_us >= 0 else None
    ),
    "gen_ai.usage.input_tokens": lambda call: bill_call(call).usage.prompt_tokens,
    "gen_ai.usage.output_tokens": lambda call: bill_call(call).usage.completion_tokens,
    "gen_ai.usage.cache_read.input_tokens": lambda call: bill_call(call).usage.cache_read,
    "gen_ai.usage.cache_creation.input_tokens": lambda call: bill_call(call).usage.cache_write,
    "gen_ai.usage.reasoning.output_tokens": lambda call: bill_call(call).usage.reasoning,
    "error.type": lambda call: call.error.code if call.error else None,
    "http.response.status_code": lambda call: call.error.status if call.error else 200,
    "pilotage.call.id": lambda call: call.id,
    "pilotage.tenant.id": lambda call: call.tenant.id,
    "pilotage.project.id": lambda call: call.tenant.project_id,
    "pilotage.key.id": lambda call: call.key_id,
    "pilotage.alias": name_model,
    "pilotage.arm": lambda call: call.arm.id if call.arm else None,
    "pilotage.model_version": lambda call: call.arm.model if call.arm else None,
    "pilotage.outcome": lambda call: call.outcome.value,
    "pilotage.attempts": lambda call: call.attempts,
    "pilotage.cost_usd": lambda call: format_usd(bill_call(call).cost_nano),
    "pilotage.flags": lambda call: sorted(call.flags),
    "pilotage.snapshot": lambda call: call.view.n,
}


def describe(call: Call) -> dict[str, Any]:
    """Return the attributes of a call that has ended."""
    return _keep({name: of(call) for name, of in ATTRIBUTES.items()})


def describe_attempt(call: Call, arm_id: str, code: str) -> dict[str, Any]:
    """Return the attributes of one attempt: whom it asked, and how that failed if it did."""
    arm = call.alias.arms.get(arm_id) if call.alias is not None else None
    upstream = _find_upstream(call, arm)
    where = urlsplit(upstream.base_url) if upstream else None
    return _keep(
        {
            "gen_ai.operation.name": OPERATIONS.get(call.wire.name, call.wire.name),
            "gen_ai.provider.name": (
                PROVIDERS.get(upstream.provider, upstream.provider) if upstream else LOCAL
            ),
            "gen_ai.request.model": (arm.upstream_model or arm.model) if arm else None,
            "server.address": where.hostname if where else None,
            "server.port": (where.port or _PORTS.get(where.scheme)) if where else None,
            "error.type": code,
            "pilotage.arm": arm_id,
        }
    )


_PORTS = {"https": 443, "http": 80}


def _find_upstream(call: Call, arm: ArmEntry | None) -> UpstreamEntry | None:
    if arm is None or not arm.upstream_id:
        return None
    return next((each for each in call.view.upstreams if each.id == arm.upstream_id), None)


def _keep(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", (), [])}
