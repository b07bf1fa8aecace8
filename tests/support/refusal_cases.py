"""Error replies of providers, as they send them, and what each becomes."""

from typing import Any, NamedTuple

RPC = "type.googleapis.com/google.rpc."


class Case(NamedTuple):
    """A reply, and what it becomes; ``says`` is a part of what the client is told."""

    name: str
    status: int
    body: Any
    code: str
    says: str = ""
    wait_s: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    param: str | None = None


def openai(message: str, kind: str, code: str | None = None, param: str | None = None) -> Any:  # noqa: ANN401
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic(kind: str, message: str) -> Any:  # noqa: ANN401
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011"}


def google(code: int, status: str, message: str, *details: Any) -> Any:  # noqa: ANN401
    error = {"code": code, "message": message, "status": status}
    return {"error": error | ({"details": list(details)} if details else {})}


def retry_info(delay: str) -> Any:  # noqa: ANN401
    return {"@type": RPC + "RetryInfo", "retryDelay": delay}


def quota_failure(**violation: str) -> Any:  # noqa: ANN401
    return {"@type": RPC + "QuotaFailure", "violations": [violation]}


DATE = (b"date", b"Sat, 21 Nov 2026 10:00:00 GMT")
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel"
PER_MINUTE = "aiplatform.googleapis.com/generate_content_requests_per_minute_per_project"

CASES = [
    # OpenAI and what speaks its wire
    Case(
        "openai: context",
        400,
        openai(
            "This model's maximum context length is 128000 tokens. However, your messages resulted "
            "in 130000 tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
        "context_length_exceeded",
        "128000 tokens",
        param="messages",
    ),
    Case(
        "openai: a parameter",
        400,
        openai(
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "invalid_request_error",
            "unsupported_value",
            "temperature",
        ),
        "invalid_request",
        "does not support 0.2",
        param="temperature",
    ),
    Case(
        "openai: too many output tokens",
        400,
        openai(
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
            "invalid_request_error",
            "invalid_value",
            "max_tokens",
        ),
        "invalid_request",
        "16384",
        param="max_tokens",
    ),
    Case(
        "openai: policy",
        400,
        openai(
            "Your request was rejected as a result of our safety system.",
            "invalid_request_error",
            "content_policy_violation",
        ),
        "content_policy_violation",
        "safety system",
    ),
    Case(
        "azure: policy",
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's "
                "content management policy.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        "content_policy_violation",
        "filtered",
    ),
    Case(
        "openai: key",
        401,
        openai(
            "Incorrect API key provided: sk-proj-SECRET. You can find your API key at ...",
            "invalid_request_error",
            "invalid_api_key",
        ),
        "upstream_auth",
        "status 401",
    ),
    Case(
        "openai: country",
        403,
        openai(
            "Country not supported", "request_forbidden", "unsupported_country_region_territory"
        ),
        "upstream_auth",
        "status 403",
    ),
    Case(
        "openai: no model",
        404,
        openai("The model `gpt-9` does not exist", "invalid_request_error", "model_not_found"),
        "upstream_error",
        "no such model",
    ),
    Case(
        "openai: rate by tokens",
        429,
        openai(
            "Rate limit reached for gpt-4o in organization org-SECRET on tokens per min (TPM): "
            "Limit 30000, Used 29000, Requested 2000. Please try again in 2s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "upstream_overloaded",
        "limits the rate of calls: tokens per min",
        2.0,
    ),
    Case(
        "openai: rate, headers before words",
        429,
        openai(
            "Rate limit reached. Please try again in 1m3.5s.", "requests", "rate_limit_exceeded"
        ),
        "upstream_overloaded",
        "limits the rate",
        0.25,
        ((b"retry-after", b"1"), (b"retry-after-ms", b"250")),
    ),
    Case(
        "openai: rate, words only",
        429,
        openai(
            "Rate limit reached. Please try again in 1m3.5s.", "requests", "rate_limit_exceeded"
        ),
        "upstream_overloaded",
        wait_s=63.5,
    ),
    Case(
        "openai: rate by the day",
        429,
        openai(
            "Rate limit reached for gpt-4o in organization org-1 on requests per day (RPD): "
            "Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
            "requests",
            "rate_limit_exceeded",
        ),
        "upstream_quota",
        "used up: requests per day",
    ),
    Case(
        "openai: larger than a minute's limit",
        429,
        openai(
            "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): "
            "Limit 30000, Requested 40000.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "upstream_quota",
    ),
    Case(
        "openai: money",
        429,
        openai(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
        "upstream_quota",
        "used up",
        headers=((b"retry-after", b"1"),),
    ),
    Case("openrouter: money", 402, openai("Insufficient credits", "", None), "upstream_quota"),
    Case(
        "openai: engine overloaded",
        503,
        openai("The engine is currently overloaded, please try again later", "server_error"),
        "upstream_overloaded",
        "shared capacity",
        1.0,
    ),
    Case(
        "openai: slow down",
        503,
        openai("Slow Down", "server_error"),
        "upstream_overloaded",
        wait_s=30.0,
        headers=((b"retry-after", b"30"),),
    ),
    Case(
        "openai: server error",
        500,
        openai("The server had an error while processing your request: SECRET", "server_error"),
        "upstream_error",
        "status 500",
    ),
    Case(
        "azure: rate",
        429,
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation have exceeded token "
                "rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds.",
            }
        },
        "upstream_overloaded",
        "limits the rate",
        6.0,
        ((b"retry-after", b"6"),),
    ),
    Case(
        "vllm: context, without 'error'",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested "
            "5000 tokens in the messages, Please reduce the length of the messages.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        "context_length_exceeded",
        "4096 tokens",
        param="messages",
    ),
    Case(
        "fastapi: what the client sent is not passed on",
        422,
        {
            "detail": [
                {
                    "type": "missing",
                    "loc": ["body", "messages", 0, "role"],
                    "msg": "Field required",
                    "input": {"content": "SECRET"},
                }
            ]
        },
        "invalid_request",
        "messages.0.role: Field required",
    ),
    Case(
        "llama.cpp: context",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5000,
                "n_ctx": 2048,
            }
        },
        "context_length_exceeded",
        "available context size",
        param="messages",
    ),
    Case(
        "llama.cpp: loading",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "upstream_cold",
        wait_s=15.0,
    ),
    Case(
        "hugging face: loading",
        503,
        {"error": "Model org/model is currently loading", "estimated_time": 20.5},
        "upstream_cold",
        "starting the model",
        20.5,
    ),
    # Anthropic
    Case(
        "anthropic: context",
        400,
        anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        "context_length_exceeded",
        "210000 tokens > 200000",
        param="messages",
    ),
    Case(
        "anthropic: a field",
        400,
        anthropic("invalid_request_error", "max_tokens: Field required"),
        "invalid_request",
        "max_tokens: Field required",
    ),
    Case(
        "anthropic: too large",
        413,
        anthropic("request_too_large", "Request exceeds the maximum allowed number of bytes."),
        "invalid_request",
        "number of bytes",
    ),
    Case(
        "anthropic: money",
        400,
        anthropic(
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans.",
        ),
        "upstream_quota",
    ),
    Case(
        "anthropic: own limit",
        400,
        anthropic(
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on "
            "2026-12-01 at 00:00 UTC.",
        ),
        "upstream_quota",
    ),
    Case(
        "anthropic: key",
        401,
        anthropic("authentication_error", "invalid x-api-key"),
        "upstream_auth",
    ),
    Case(
        "anthropic: permission",
        403,
        anthropic("permission_error", "Your API key does not have permission."),
        "upstream_auth",
    ),
    Case(
        "anthropic: no model",
        404,
        anthropic("not_found_error", "model: claude-9"),
        "upstream_error",
        "no such model",
    ),
    Case(
        "anthropic: rate",
        429,
        anthropic(
            "rate_limit_error",
            "This request would exceed the rate limit for your organization (org-SECRET) of 40,000 "
            "input tokens per minute.",
        ),
        "upstream_overloaded",
        "limits the rate",
        37.0,
        ((b"retry-after", b"37"),),
    ),
    Case(
        "anthropic: overloaded",
        529,
        anthropic("overloaded_error", "Overloaded"),
        "upstream_overloaded",
        "shared capacity",
        1.0,
    ),
    Case(
        "anthropic: server error",
        500,
        anthropic("api_error", "Internal server error"),
        "upstream_error",
        "status 500",
    ),
    # Vertex AI
    Case(
        "vertex: shared capacity",
        429,
        [
            google(
                429,
                "RESOURCE_EXHAUSTED",
                "Resource exhausted. Please try again later. Please refer to "
                "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for details.",
            )
        ],
        "upstream_overloaded",
        "shared capacity",
        1.0,
    ),
    Case(
        "vertex: provisioned throughput",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "Too many requests. Exceeded the Provisioned Throughput.",
        ),
        "upstream_overloaded",
        "provisioned throughput",
        1.0,
    ),
    Case(
        "vertex: quota by the minute",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            f"Quota exceeded for {PER_MINUTE}_per_base_model with base model: gemini-3.5-flash. "
            "Please submit a quota increase request.",
        ),
        "upstream_overloaded",
        f"limits the rate of calls: {PER_MINUTE}_per_base_model",
        15.0,
    ),
    Case(
        "vertex: quota by the minute, with a delay",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            quota_failure(quotaMetric="m", quotaId="GenerateRequestsPerMinutePerProject"),
            retry_info("38.25s"),
        ),
        "upstream_overloaded",
        "GenerateRequestsPerMinutePerProject",
        38.25,
    ),
    Case(
        "vertex: quota by the day",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            quota_failure(quotaMetric="generate_requests", quotaId=PER_DAY),
            retry_info("38s"),
        ),
        "upstream_quota",
        f"used up: {PER_DAY}.",
    ),
    Case(
        "vertex: quota in words",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Tuning jobs' and limit 'Concurrent tuning jobs' of "
            "service 'aiplatform.googleapis.com' for consumer 'project_number:SECRET'.",
        ),
        "upstream_quota",
        "used up: Concurrent tuning jobs.",
    ),
    Case(
        "vertex: quota in metadata",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded.",
            {
                "@type": RPC + "ErrorInfo",
                "reason": "RATE_LIMIT_EXCEEDED",
                "metadata": {"quota_limit": "TokensPerDay", "consumer": "projects/SECRET"},
            },
        ),
        "upstream_quota",
        "used up: TokensPerDay.",
    ),
    Case(
        "vertex: scale from zero",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "Model is not yet ready for inference. Please wait while model completes scale-up from "
            "zero and try again.",
        ),
        "upstream_cold",
        wait_s=15.0,
    ),
    Case(
        "vertex: context",
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed "
            "(1048576).",
        ),
        "context_length_exceeded",
        "1048576",
        param="messages",
    ),
    Case(
        "vertex: an argument",
        400,
        google(400, "INVALID_ARGUMENT", "Invalid value at 'temperature'"),
        "invalid_request",
        "Invalid value at 'temperature'",
    ),
    Case(
        "vertex: place or billing, not the request",
        400,
        google(400, "FAILED_PRECONDITION", "User location is not supported: SECRET"),
        "upstream_error",
        "status 400",
    ),
    Case(
        "gemini: a bad key is a 400 there",
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            {"@type": RPC + "ErrorInfo", "reason": "API_KEY_INVALID"},
        ),
        "upstream_auth",
        "status 400",
    ),
    Case(
        "vertex: token",
        401,
        google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        "upstream_auth",
    ),
    Case(
        "vertex: permission",
        403,
        google(403, "PERMISSION_DENIED", "Permission 'aiplatform.endpoints.predict' denied"),
        "upstream_auth",
    ),
    Case(
        "vertex: retired model",
        404,
        google(404, "NOT_FOUND", "Publisher Model `projects/SECRET` was not found"),
        "upstream_error",
        "no such model",
    ),
    Case(
        "vertex: overloaded",
        503,
        google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "upstream_overloaded",
        "shared capacity",
        1.0,
    ),
    Case("vertex: internal", 500, google(500, "INTERNAL", "Internal error."), "upstream_error"),
    Case("vertex: late", 504, google(504, "DEADLINE_EXCEEDED", "Deadline"), "upstream_error"),
    # whoever
    Case("timeout", 408, None, "upstream_error", "status 408"),
    Case("redirect", 302, None, "upstream_error", "redirect (302)"),
    Case("a proxy's page", 502, "<html>SECRET</html>", "upstream_error", "status 502"),
    Case("no body", 400, None, "invalid_request", "refused the request"),
    Case("a bare 503", 503, None, "upstream_error", "status 503"),
    Case("no method", 405, None, "upstream_error", "status 405"),
]
