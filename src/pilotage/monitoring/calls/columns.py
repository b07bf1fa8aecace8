"""The columns of a call's row: what is kept of each, and what ``calls`` shows of it in SQL.

A number that is not known is NULL; a text that is not known is empty, as in the ledger.
"""

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from pilotage.core.frames import Ended, Flag
from pilotage.core.names import SHADOW_TENANT
from pilotage.monitoring.rollups.rules import find_alias
from pilotage.monitoring.rollups.types import OTHER

USD = "CAST(cost_nano AS DECIMAL(18, 0)) * CAST(0.000000001 AS DECIMAL(10, 9))"  # exactly


class CallColumn(NamedTuple):
    """A column of ``calls``: name, SQL type, meaning."""

    name: str
    type: str
    help: str


class CallRow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A call as it is handed to DuckDB: a JSON object without what is not known."""

    seq: int
    spool: str
    epoch: str
    at_us: int
    call_id: str
    project_id: str
    tenant_id: str
    outcome: str
    status: int
    attempts: int
    chunks: int
    cost_nano: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    is_estimated: bool
    snapshot_n: int
    is_shadow: bool
    key_id: str = ""
    alias: str = ""
    arm: str = ""
    assigned: str = ""
    version_id: str = ""
    model: str = ""
    answered_by: str = ""
    code: str = ""
    finish_reason: str = ""
    price_id: str = ""
    user_token: str = ""
    feature: str = ""
    prompt: str = ""
    trace_id: str = ""
    upstream_id: str = ""
    fingerprint: str = ""
    shadow_of: str = ""
    duration_us: int | None = None
    ttft_us: int | None = None
    queue_us: int | None = None
    flags: list[str] = []


COLUMNS = (
    CallColumn("ended_at", "TIMESTAMP", "when the call ended, UTC"),
    CallColumn("call_id", "VARCHAR", "the call"),
    CallColumn("project_id", "VARCHAR", "the project that owns the endpoint"),
    CallColumn("tenant_id", "VARCHAR", f"who pays; {SHADOW_TENANT} for copies nobody waited for"),
    CallColumn("key_id", "VARCHAR", "the API key"),
    CallColumn(
        "alias", "VARCHAR", f"the model name that the client sent; {OTHER} for one that is none"
    ),
    CallColumn("arm", "VARCHAR", "the deployment or upstream that answered"),
    CallColumn("assigned", "VARCHAR", "the arm that the call was dealt"),
    CallColumn("version_id", "VARCHAR", "the model version that answered"),
    CallColumn("model", "VARCHAR", "the model that answered"),
    CallColumn("answered_by", "VARCHAR", "the model that the upstream says it used"),
    CallColumn("outcome", "VARCHAR", "how the call ended"),
    CallColumn("status", "INTEGER", "HTTP status of the answer, 0 without one"),
    CallColumn("code", "VARCHAR", "the error's code"),
    CallColumn("finish_reason", "VARCHAR", "why the model stopped"),
    CallColumn("input_tokens", "BIGINT", "tokens read, neither from a cache nor into one"),
    CallColumn("cache_read_tokens", "BIGINT", "tokens read from the provider's cache"),
    CallColumn("cache_write_tokens", "BIGINT", "tokens written into it"),
    CallColumn("output_tokens", "BIGINT", "tokens of the visible answer"),
    CallColumn("reasoning_tokens", "BIGINT", "tokens of reasoning"),
    CallColumn("cost_nano", "BIGINT", "what it cost, nano-USD"),
    CallColumn("cost_usd", "DECIMAL(18,9)", "the same in USD"),
    CallColumn("is_estimated", "BOOLEAN", "whether cost or tokens are an estimate"),
    CallColumn("price_id", "VARCHAR", "the price"),
    CallColumn("duration_us", "BIGINT", "how long it took, microseconds"),
    CallColumn("ttft_us", "BIGINT", "time to the first token, microseconds"),
    CallColumn("queue_us", "BIGINT", "time it waited for a place, microseconds"),
    CallColumn("chunks", "BIGINT", "parts in which the answer came"),
    CallColumn("attempts", "BIGINT", "how often an upstream was asked"),
    CallColumn("snapshot_n", "BIGINT", "the Snapshot that was served"),
    CallColumn("user_token", "VARCHAR", "the end user, as the token that the ledger has"),
    CallColumn("feature", "VARCHAR", "the tenant's feature"),
    CallColumn("prompt", "VARCHAR", "NAME@VERSION of the prompt"),
    CallColumn("flags", "VARCHAR[]", "what else is worth knowing"),
    CallColumn("is_shadow", "BOOLEAN", "whether it is a copy that no client waited for"),
    CallColumn("shadow_of", "VARCHAR", "the call it is a copy of"),
    CallColumn("trace_id", "VARCHAR", "the trace"),
    CallColumn("upstream_id", "VARCHAR", "the provider's own id of the call"),
    CallColumn("fingerprint", "VARCHAR", "the provider's fingerprint of its system"),
    CallColumn("spool", "VARCHAR", "the gateway's spool that recorded it"),
    CallColumn("epoch", "VARCHAR", "which life of the spool"),
    CallColumn("seq", "BIGINT", "the number of the record in it"),
)
_COMPUTED = {"ended_at": "make_timestamp(at_us)", "cost_usd": USD}
STORED = tuple(column for column in COLUMNS if column.name != "cost_usd")


def make_row(seq: int, spool: str, epoch: str, ended: Ended, user_token: str) -> CallRow:
    """Return the row of a call; a copy that no client waited for is nobody's."""
    is_copy = Flag.SHADOW in ended.flags
    usage = ended.usage
    return CallRow(
        seq,
        spool,
        epoch,
        ended.at_us,
        ended.call_id,
        ended.project_id,
        SHADOW_TENANT if is_copy else ended.tenant_id,
        ended.outcome,
        ended.status,
        ended.attempts,
        ended.chunks,
        ended.cost_nano,
        usage.input,
        usage.cache_read,
        usage.cache_write,
        usage.output,
        usage.reasoning,
        ended.is_estimated,
        ended.snapshot_n,
        is_copy,
        "" if is_copy else ended.key_id,
        find_alias(ended),
        ended.arm,
        ended.assigned,
        ended.version_id,
        ended.model,
        ended.answered_by,
        ended.code,
        ended.finish_reason,
        ended.price_id,
        "" if is_copy else user_token,
        "" if is_copy else ended.feature,
        ended.prompt,
        ended.trace_id,
        ended.upstream_id,
        ended.fingerprint,
        ended.shadow_of,
        None if ended.duration_us < 0 else ended.duration_us,
        None if ended.ttft_us < 0 else ended.ttft_us,
        None if ended.queue_us < 0 else ended.queue_us,
        ended.flags,
    )


def select_read(path: str) -> str:
    """Return the SELECT of stored rows from JSON lines of :class:`CallRow` in a (quoted) file."""
    kinds = {column.name: column.type for column in STORED} | {"at_us": "BIGINT"}
    shape = ", ".join(f"'{name}': '{kinds[name]}'" for name in CallRow.__struct_fields__)
    chosen = ", ".join(_read_column(column) for column in STORED)
    how = f"format = 'newline_delimited', columns = {{{shape}}}"
    return f"SELECT {chosen} FROM read_json({path}, {how})"  # noqa: S608 - names of ours


def list_shown(wanted: Collection[str]) -> str:
    """Return the select list that makes wanted columns of ``calls`` of stored rows."""
    return ", ".join(
        f"{USD} AS cost_usd" if column.name == "cost_usd" else f'"{column.name}"'
        for column in COLUMNS
        if column.name in wanted
    )


def _read_column(column: CallColumn) -> str:
    if column.name in _COMPUTED:
        return f'{_COMPUTED[column.name]} AS "{column.name}"'
    if column.type == "VARCHAR":
        return f"coalesce({column.name}, '') AS {column.name}"
    if column.type == "VARCHAR[]":
        return f"coalesce({column.name}, []) AS {column.name}"
    return column.name
