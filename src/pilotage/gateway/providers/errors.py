"""What an error reply of a model server means, whichever wire it speaks. Pure decisions.

A reply is read leniently (:mod:`pilotage.gateway.providers.refusals`) and judged by its status
first, by its codes second and by its words last: providers say the same thing in many ways, and
one status for several things. 429 alone is four: shared capacity, provisioned throughput, a rate,
a quota that is used up; and at some it is a model that is still being started.

What the client sent is never passed on: an upstream's own words only where they are about the
request, and cut.
"""

import re
from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.gateway.providers.refusals import Refusal, read_refusal

MAX_RETRY_AFTER_S = 3600.0
OVERLOADED_REST_S = 1.0  # what is said where the upstream says nothing
RATE_REST_S = 15.0  # a rate by the minute
COLD_REST_S = 15.0

_ABOUT_REQUEST = frozenset({400, 413, 422})

_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_CONTEXT = re.compile(
    r"maximum context length|context (?:length|window|size)|prompt is too long"
    r"|input token count.{0,40}exceeds|input is too long|too many input tokens"
)
_POLICY_CODES = {
    "content_policy_violation",
    "content_filter",
    "responsibleaipolicyviolation",
    "moderation_blocked",
}
_POLICY = re.compile(r"content (?:management|filtering|usage)? ?policy|rejected by .{0,20}safety")
_KEY_CODES = {"api_key_invalid", "invalid_api_key", "api_key_expired", "access_token_expired"}
_MODEL_CODES = {"model_not_found", "model_not_supported"}
_QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "insufficient_credits",
    "insufficient_balance",
}
_QUOTA = re.compile(
    r"credit balance is too low|insufficient (?:credits|balance|funds)"
    r"|specified .{0,20}api usage limits|exceeded your current quota"
)
_COLD = re.compile(
    r"not yet ready for inference|scale-?up from zero|scaling up|cold start|warming up"
    r"|(?:currently|still) loading|\bloading model|model is (?:loading|starting|being loaded)"
)
_OVERLOADED = re.compile(
    r"overloaded|\bslow down\b|over capacity|at capacity|high demand"
    r"|resource (?:has been )?exhausted"
)
_LONG = re.compile(r"per[ _]?(?:day|month|week|year)", re.IGNORECASE)
_SHORT = re.compile(r"per[ _]?(?:min|sec|hour)", re.IGNORECASE)


def translate_error(
    status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, now_us: int = 0
) -> PilotageError:
    """Return our error for an upstream's reply, whose status is not 200.

    ``now_us`` is for a ``retry-after`` that is a date in a reply without a ``date`` of its own.
    """
    said = read_refusal(headers, body, now_us)
    if 300 <= status < 400:
        return PilotageError(
            "upstream_error", f"The model answered with a redirect ({status}), never followed."
        )
    if status in (401, 403, 407) or (status == 400 and said.codes & _KEY_CODES):
        return _translate_denied(status, said)
    if status >= 402 and _COLD.search(said.text):
        wait_s = _bound(said.wait_s, COLD_REST_S)
        return PilotageError(
            "upstream_cold", "The provider is starting the model.", retry_after_s=wait_s
        )
    if _is_used_up(status, said):
        return PilotageError("upstream_quota", f"The quota at the provider is used up{said.quota}.")
    if status in _ABOUT_REQUEST and not said.codes & (_MODEL_CODES | {"failed_precondition"}):
        return _translate_request(said)
    if _is_busy(status, said):
        return _translate_busy(said)
    return _translate_failure(status, said)


def _translate_denied(status: int, said: Refusal) -> PilotageError:
    if status == 403 and said.codes & _POLICY_CODES:
        return PilotageError("content_policy_violation", "The provider refused the content.")
    return PilotageError(
        "upstream_auth", f"The provider refused our credential with status {status}."
    )


def _translate_request(said: Refusal) -> PilotageError:
    """Translate what is wrong with the request, in the upstream's words."""
    if said.codes & _CONTEXT_CODES or _CONTEXT.search(said.text):
        return PilotageError("context_length_exceeded", said.message, param="messages")
    if said.codes & _POLICY_CODES or _POLICY.search(said.text):
        return PilotageError(
            "content_policy_violation", said.message or "The provider refused the content."
        )
    return PilotageError(
        "invalid_request", said.message or "The model refused the request.", param=said.param
    )


def _translate_busy(said: Refusal) -> PilotageError:
    """Translate that the upstream could, but not now."""
    detail, rest_s = "The model is overloaded.", OVERLOADED_REST_S
    if "provisioned throughput" in said.text:
        detail = "The provisioned throughput at the provider is exceeded."
    elif said.quota or "rate limit" in said.text or "rate_limit_error" in said.codes:
        detail = f"The provider limits the rate of calls{said.quota}."
        rest_s = RATE_REST_S if said.quota else OVERLOADED_REST_S
    elif _OVERLOADED.search(said.text) or "overloaded_error" in said.codes:
        detail = "The provider's shared capacity is exhausted."
    return PilotageError("upstream_overloaded", detail, retry_after_s=_bound(said.wait_s, rest_s))


def _translate_failure(status: int, said: Refusal) -> PilotageError:
    if status in (404, 410) or said.codes & _MODEL_CODES:
        return PilotageError(
            "upstream_error",
            f"The provider has no such model (status {status}).",
            hint="What the deployment calls the model must be the provider's name of it.",
        )
    return PilotageError("upstream_error", f"The model answered with status {status}.")


def _is_busy(status: int, said: Refusal) -> bool:
    if status in (429, 529) or (status == 503 and said.wait_s is not None):
        return True
    is_overloaded = "overloaded_error" in said.codes or bool(_OVERLOADED.search(said.text))
    return status >= 500 and is_overloaded


def _is_used_up(status: int, said: Refusal) -> bool:
    """Say whether waiting a little will not help: money, or a quota of days."""
    if status == 402 or said.codes & _QUOTA_CODES:
        return True
    if status not in (400, 429):
        return False
    if status == 429 and "request too large for" in said.text:  # one call above a whole minute's
        return True
    if _SHORT.search(said.limits):
        return False
    if said.quota:
        return status == 429
    return bool(_QUOTA.search(said.text) or (status == 429 and _LONG.search(said.limits)))


def _bound(wait_s: float | None, default_s: float) -> float:
    return default_s if wait_s is None else min(wait_s, MAX_RETRY_AFTER_S)
