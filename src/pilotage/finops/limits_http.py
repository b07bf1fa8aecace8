"""Control-plane routes of limits."""

from datetime import datetime

from pilotage.core.limits import format_amount
from pilotage.finops.limits import LimitService
from pilotage.finops.types import Action, Limit, LimitSpec, Measure, Per, StoreLoss
from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, make_page

ONE = "/limits/{limit_name}"


class LimitChange(Body):
    """What is said of a limit; its amount, action and store loss may change, the rest may not.

    ``amount`` is USD as decimal text, or a number such as ``60`` or ``100k``; ``per`` is minute,
    day, month or total (nothing for concurrency). ``tenant``, ``key``, ``user`` and ``endpoint``
    say which calls count: nothing for any of them, all together, ``*`` for any of them, each apart.
    """

    measure: Measure
    amount: str
    per: Per = Per.NONE
    tenant: str = ""
    key: str = ""
    user: str = ""
    endpoint: str = ""
    action: Action = Action.BLOCK
    downgrade_to: str = ""
    on_store_loss: StoreLoss = StoreLoss.CLOSED

    def to_spec(self) -> LimitSpec:
        """Return it as the service takes it."""
        return LimitSpec(**{name: getattr(self, name) for name in LimitSpec.__dataclass_fields__})


class LimitBody(LimitChange):
    """A limit to create."""

    name: str


class LimitView(RevisedView):
    """A limit: what calls may use together. A budget is one in usd, a quota one in tokens."""

    project_id: str
    name: str
    measure: Measure
    amount: str
    per: Per
    tenant_id: str
    key_id: str
    user: str
    endpoint: str
    action: Action
    downgrade_to: str
    on_store_loss: StoreLoss
    created_at: datetime


def limit_routes(service: LimitService) -> list[Route]:
    """List the routes of limits."""

    async def create_limit(call: ApiCall, body: LimitBody) -> LimitView:
        """Create a limit; it counts the calls that begin once it is in force."""
        async with call.write() as tx:
            return _show(await service.create_limit(tx, body.name, body.to_spec()))

    async def list_limits(call: ApiCall, limit: int = 50, after: str = "") -> Page[LimitView]:
        """List limits by name."""
        async with call.read() as tx:
            return make_page(await service.list_limits(tx, after, limit + 1), limit, _show, "name")

    async def get_limit(call: ApiCall, limit_name: str) -> LimitView:
        """Show a limit."""
        async with call.read() as tx:
            return _show(await service.get_limit(tx, limit_name))

    async def change_limit(call: ApiCall, limit_name: str, body: LimitChange) -> LimitView:
        """Change a limit's amount or what it does; what was counted stays counted."""
        async with call.write() as tx:
            return _show(
                await service.change_limit(tx, limit_name, body.to_spec(), call.expected_rev)
            )

    async def delete_limit(call: ApiCall, limit_name: str) -> None:
        """Delete a limit: from then on it holds nothing back."""
        async with call.write() as tx:
            await service.delete_limit(tx, limit_name)

    return [
        Route(
            method="POST",
            path="/limits",
            permission="finops.limit.create",
            handler=create_limit,
            status=201,
        ),
        Route(method="GET", path="/limits", permission="finops.limit.read", handler=list_limits),
        Route(method="GET", path=ONE, permission="finops.limit.read", handler=get_limit),
        Route(method="PUT", path=ONE, permission="finops.limit.change", handler=change_limit),
        Route(
            method="DELETE",
            path=ONE,
            permission="finops.limit.delete",
            handler=delete_limit,
            status=204,
        ),
    ]


def _show(limit: Limit) -> LimitView:
    return LimitView.of(limit, amount=format_amount(limit.measure, limit.amount))
