"""Control-plane routes for the people who run gateways apart."""

from datetime import datetime

from pilotage.identity.service import IdentityService
from pilotage.identity.types import Principal
from pilotage.kit.api import ApiCall, Body, Page, Route, View, make_page
from pilotage.publisher.remotes import RemoteGateways, SlotState


class GatewayBody(Body):
    """A gateway to create."""

    name: str


class SlotView(View):
    """One process of a gateway: when it was heard, what it serves, how far its records are here.

    ``lag_s`` is how long before it was heard it had last handed in everything. One that
    ``is_outdated`` serves no endpoint any more once a rollout begins, or an adapter is deployed.
    """

    slot: str
    is_alive: bool
    seen_at: datetime
    snapshot_n: int
    shipped: int
    lag_s: float
    is_outdated: bool


class GatewayView(View):
    """A gateway that runs apart."""

    id: str
    name: str
    state: str
    slots: list[SlotView]


class NewGatewayView(GatewayView):
    """A gateway just made: ``secret`` is its credential and is never shown again.

    ``public_key`` is the key that Snapshots are signed with, which the gateway is given to pin.
    """

    secret: str | None
    public_key: str


def gateway_routes(
    identity: IdentityService, remotes: RemoteGateways, public_key: bytes
) -> list[Route]:
    """List the routes about gateways."""

    def show_slot(state: SlotState) -> SlotView:
        report = state.report
        return SlotView.of(
            state,
            is_alive=remotes.is_alive(state),
            snapshot_n=report.n,
            shipped=report.shipped,
            lag_s=report.lag_us / 1e6,
            is_outdated=report.is_outdated,
        )

    def show(gateway: Principal) -> GatewayView:
        slots = [show_slot(state) for state in remotes.list_states(gateway.name)]
        return GatewayView.of(gateway, state=_state_of(identity, gateway), slots=slots)

    async def create_gateway(call: ApiCall, body: GatewayBody) -> NewGatewayView:
        """Create a gateway that runs apart; its credential is in this reply only."""
        async with call.write() as tx:
            made = await identity.create_gateway(tx, body.name)
        return NewGatewayView.of(
            made.gateway, state="active", slots=[], secret=made.secret, public_key=public_key.hex()
        )

    async def list_gateways(call: ApiCall, limit: int = 50, after: str = "") -> Page[GatewayView]:
        """List the gateways that run apart, by name."""
        async with call.read() as tx:
            return make_page(
                await identity.list_gateways(tx, after, limit + 1), limit, show, "name"
            )

    async def get_gateway(call: ApiCall, gateway: str) -> GatewayView:
        """Show a gateway that runs apart."""
        async with call.read() as tx:
            return show(await identity.get_gateway(tx, gateway))

    async def revoke_gateway(call: ApiCall, gateway: str) -> GatewayView:
        """Revoke a gateway's credential for ever."""
        async with call.write() as tx:
            revoked = await identity.revoke_gateway(tx, gateway)
        remotes.forget(revoked.name)
        return show(revoked)

    return [
        Route(
            method="POST",
            path="/gateways",
            permission="publisher.gateways.create",
            handler=create_gateway,
            status=201,
            is_global=True,
            secrets=("secret",),
        ),
        Route(
            method="GET",
            path="/gateways",
            permission="publisher.gateways.read",
            handler=list_gateways,
            is_global=True,
        ),
        Route(
            method="GET",
            path="/gateways/{gateway}",
            permission="publisher.gateways.read",
            handler=get_gateway,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/gateways/{gateway}:revoke",
            permission="publisher.gateways.revoke",
            handler=revoke_gateway,
            is_global=True,
        ),
    ]


def _state_of(identity: IdentityService, gateway: Principal) -> str:
    return "active" if identity.is_gateway(gateway) else "revoked"
