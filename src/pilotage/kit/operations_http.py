"""Control-plane routes of operations, and how a reply shows one."""

from datetime import datetime
from typing import Any, Self

import msgspec
from pydantic import BaseModel

from pilotage.kit.api import ApiCall, Page, RevisedView, Route, make_page
from pilotage.kit.operations import Operation, Operations, OperationState


class OperationError(BaseModel):
    """Why an operation failed."""

    code: str
    detail: str
    hint: str


class OperationView(RevisedView):
    """Long work: its progress (``total`` -1 where it is not known) and how it ended."""

    project_id: str | None
    kind: str
    subject: str
    state: OperationState
    phase: str
    done: int
    total: int
    result: Any | None
    error: OperationError | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, item: object, **more: object) -> Self:
        """Make the view of an :class:`Operation`."""
        if isinstance(item, Operation):
            more = {"result": _result(item), "error": _error(item)} | more
        return super().of(item, **more)


def operation_routes(operations: Operations) -> list[Route]:
    """List the routes of operations."""

    async def list_operations(
        call: ApiCall, state: OperationState | None = None, limit: int = 50, after: str = ""
    ) -> Page[OperationView]:
        """List operations, oldest first."""
        found = await operations.list(call.actor, after, limit + 1, state)
        return make_page(found, limit, OperationView.of, "id")

    async def get_operation(call: ApiCall, operation: str) -> OperationView:
        """Show an operation with its progress of this moment."""
        return OperationView.of(await operations.get(call.actor, operation))

    async def cancel_operation(call: ApiCall, operation: str) -> OperationView:
        """Cancel a running operation, with the permission that starts one like it.

        The reply comes when it has ended.
        """
        found = await operations.get(call.actor, operation)
        kind = operations.find_kind(found.id)
        if kind is not None:
            await call.require(kind.permission, is_global=kind.is_global)
        return OperationView.of(await operations.cancel(call.actor, found.id))

    return [
        Route(
            method="GET",
            path="/operations",
            permission="kit.operations.read",
            handler=list_operations,
        ),
        Route(
            method="GET",
            path="/operations/{operation}",
            permission="kit.operations.read",
            handler=get_operation,
        ),
        Route(
            method="POST",
            path="/operations/{operation}:cancel",
            permission="kit.operations.cancel",
            handler=cancel_operation,
        ),
    ]


def _result(operation: Operation) -> object:
    return None if operation.result is None else msgspec.json.decode(operation.result)


def _error(operation: Operation) -> OperationError | None:
    if operation.error_code is None:
        return None
    return OperationError(
        code=operation.error_code,
        detail=operation.error_detail or "",
        hint=operation.error_hint or "",
    )
