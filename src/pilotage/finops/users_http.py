"""Control-plane routes of end users: who stands behind the tokens of the ledger."""

from pilotage.core.errors import PilotageError
from pilotage.finops.users import User, Users
from pilotage.identity.service import IdentityService
from pilotage.kit.api import ApiCall, Page, Route, View, make_page

MOST_TOKENS = 500


class UserView(View):
    """An end user: ``id`` is what the ledger calls it, ``name`` what its tenant calls it."""

    id: str
    tenant_id: str
    name: str


def user_routes(users: Users, identity: IdentityService) -> list[Route]:
    """List the routes of end users."""

    async def list_users(
        call: ApiCall,
        tenant: str | None = None,
        tokens: str = "",
        limit: int = 50,
        after: str = "",
    ) -> Page[UserView]:
        """List the names of end users by token; ``tokens`` only those, with commas."""
        wanted = {token.strip() for token in tokens.split(",") if token.strip()}
        if len(wanted) > MOST_TOKENS:
            raise PilotageError(
                "invalid_request", f"Ask for {MOST_TOKENS} tokens at most.", param="tokens"
            )
        async with call.read() as tx:
            tenant_id = None if tenant is None else (await identity.get_tenant(tx, tenant)).id
            found = await users.list_users(tx, tenant_id, wanted, after, limit + 1)
            return make_page(found, limit, _show, "id")

    return [
        Route(method="GET", path="/users", permission="finops.users.reveal", handler=list_users)
    ]


def _show(user: User) -> UserView:
    return UserView.of(user)
