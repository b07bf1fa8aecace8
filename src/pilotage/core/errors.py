"""The one error tree: every refusal Pilotage can utter, in one catalogue.

An error has a ``code`` from :data:`CATALOGUE` (which fixes its HTTP status, its OpenAI ``type`` and
whether the same request may be sent again), a ``detail`` that is safe to show (never a prompt,
never a secret), and a ``hint`` that names the fix. Control-plane doors render it as an RFC 9457
problem, the gateway as an OpenAI error object; the catalogue is also the source of the
reference page.
"""

from typing import NamedTuple


class ErrorSpec(NamedTuple):
    """One catalogue line: what a code means wherever it appears."""

    code: str
    status: int
    title: str
    type: str = "invalid_request_error"
    is_retryable: bool = False


_API = "api_error"

CATALOGUE: dict[str, ErrorSpec] = {
    spec.code: spec
    for spec in (
        # the request itself
        ErrorSpec("invalid_request", 400, "The request is not valid"),
        ErrorSpec("invalid_json", 400, "The body is not valid JSON"),
        ErrorSpec("invalid_config", 400, "The configuration is not valid"),
        ErrorSpec("invalid_artifact", 400, "The file is not a model that can be read"),
        ErrorSpec("invalid_dataset", 400, "The dataset cannot be read, or is not fit for use"),
        ErrorSpec("invalid_query", 400, "The query has no answer"),
        ErrorSpec("query_too_large", 400, "The query takes more than it may"),
        ErrorSpec("invalid_backup", 400, "The file is not a backup that can be restored"),
        ErrorSpec("context_length_exceeded", 400, "The prompt does not fit the model's context"),
        ErrorSpec("request_timeout", 408, "The body did not arrive in time", is_retryable=True),
        ErrorSpec("request_too_large", 413, "The body is larger than allowed"),
        ErrorSpec("idempotency_mismatch", 422, "The idempotency key was used for another request"),
        ErrorSpec("content_policy_violation", 400, "A guard refused the content"),
        ErrorSpec("unsupported", 400, "The chosen model's provider cannot do this"),
        # who asks
        ErrorSpec("invalid_api_key", 401, "The API key is missing or not valid"),
        ErrorSpec("invalid_credential", 401, "The credential is missing or not valid"),
        ErrorSpec("permission_denied", 403, "The caller may not do this", "permission_error"),
        # how much is asked for
        ErrorSpec(
            "rate_limit_exceeded",
            429,
            "A rate limit is reached",
            "rate_limit_error",
            is_retryable=True,
        ),
        ErrorSpec("insufficient_quota", 429, "A budget or quota is used up", "insufficient_quota"),
        ErrorSpec(
            "limits_unavailable",
            503,
            "Limits cannot be checked, and must be",
            _API,
            is_retryable=True,
        ),
        # what is asked for
        ErrorSpec("not_found", 404, "There is no such object"),
        ErrorSpec("model_not_found", 404, "There is no such model"),
        ErrorSpec("prompt_not_found", 404, "There is no such prompt, or no such version of it"),
        ErrorSpec("unknown_url", 404, "There is no such address"),
        ErrorSpec("erased", 410, "What it held was erased"),
        ErrorSpec("method_not_allowed", 405, "The address does not take this method"),
        ErrorSpec("already_exists", 409, "An object of this name exists"),
        ErrorSpec("conflict", 409, "The object is in a state that does not allow this"),
        ErrorSpec("deployment_serves_traffic", 409, "The deployment still serves traffic"),
        ErrorSpec("approval_required", 409, "Somebody else must approve this first"),
        ErrorSpec("gate_failed", 409, "A gate does not let the version pass"),
        ErrorSpec("frozen", 409, "A freeze is on: nothing may change now"),
        ErrorSpec("precondition_failed", 412, "The object has changed since it was read"),
        ErrorSpec("precondition_required", 428, "The request must say which revision it changes"),
        # what the gateway cannot do now
        ErrorSpec("no_allowed_target", 403, "No target may answer this call", "permission_error"),
        ErrorSpec("price_missing", 503, "The model has no price", _API),
        ErrorSpec("no_replica", 503, "No replica of the model is ready", _API, is_retryable=True),
        ErrorSpec("draining", 503, "The server is shutting down", _API, is_retryable=True),
        ErrorSpec("not_ready", 503, "The server is not ready", _API, is_retryable=True),
        ErrorSpec("spool_full", 503, "Calls cannot be recorded", _API, is_retryable=True),
        ErrorSpec("unavailable", 503, "A service this needs is away", _API, is_retryable=True),
        ErrorSpec("on_hold", 409, "A legal hold is in force"),
        ErrorSpec("audit_broken", 503, "The audit log is not what it was", _API),
        ErrorSpec("audit_unavailable", 503, "Changes cannot be audited", _API, is_retryable=True),
        ErrorSpec(
            "clock_set_back", 503, "The clock is behind the last change", _API, is_retryable=True
        ),
        ErrorSpec("schema_too_new", 503, "The database is newer than this program", _API),
        # what went wrong upstream
        ErrorSpec("upstream_overloaded", 503, "The model is overloaded", _API, is_retryable=True),
        ErrorSpec("upstream_quota", 503, "The quota at the provider is used up", _API),
        ErrorSpec(
            "upstream_cold", 503, "The provider is starting the model", _API, is_retryable=True
        ),
        ErrorSpec("upstream_auth", 502, "The provider refused our credential", _API),
        ErrorSpec("egress_denied", 502, "The address may not be reached from here", _API),
        ErrorSpec("breaker_open", 503, "The model has failed too often", _API, is_retryable=True),
        ErrorSpec(
            "upstream_unreachable", 502, "The model could not be reached", _API, is_retryable=True
        ),
        ErrorSpec(
            "upstream_error", 502, "The model answered with an error", _API, is_retryable=True
        ),
        ErrorSpec("upstream_cut", 502, "The model's answer broke off", _API, is_retryable=True),
        ErrorSpec(
            "upstream_invalid", 502, "The model's answer could not be read", _API, is_retryable=True
        ),
        ErrorSpec("upstream_stall", 504, "The model stopped answering", _API, is_retryable=True),
        ErrorSpec("deadline", 504, "The call took longer than allowed", _API, is_retryable=True),
        ErrorSpec("client_gone", 499, "The client closed the connection", _API),
        ErrorSpec("reader_stalled", 499, "The client stopped reading", _API),
        ErrorSpec("cancelled", 503, "The call was cancelled", _API, is_retryable=True),
        ErrorSpec("internal_error", 500, "Something broke inside", _API, is_retryable=True),
    )
}


class PilotageError(Exception):
    """An expected failure, told to whoever asked.

    ``detail`` says what was wrong and where; ``hint`` what to do instead; ``param`` names the
    offending field; ``retry_after_s`` is set where waiting helps.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        hint: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.spec = CATALOGUE[code]
        self.detail = detail or self.spec.title
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.detail} {hint}".strip())

    @property
    def code(self) -> str:
        """The catalogue code."""
        return self.spec.code

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return self.spec.status
