"""What the traffic of an endpoint looks like, in the names that people write, and the way back.

Decision records hold such pictures of before and after. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from msgspec import to_builtins

from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.routing import list_named
from pilotage.endpoints.types import Deployment, Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The traffic of an endpoint at one moment.

    ``shares`` are percentages by model, of every deployment; ``serving`` are the deployments that
    may answer a call. ``routing`` and ``regions`` are as they are kept, with models for ids.
    """

    endpoint_id: str
    name: str
    shares: Mapping[str, str]
    routing: Mapping[str, Any]
    regions: Sequence[str]
    serving: Sequence[Deployment] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return what a decision record keeps of it."""
        return {
            "shares": dict(self.shares),
            "routing": dict(self.routing),
            "regions": list(self.regions),
        }

    @property
    def moving(self) -> dict[str, str]:
        """The shares that are not 0."""
        return {model: share for model, share in self.shares.items() if share != "0"}


def draw(endpoint: Endpoint, deployments: Sequence[Deployment]) -> Picture:
    """Return what an endpoint's traffic looks like."""
    names = {item.id: item.model for item in deployments}
    answering = set(list_serving(endpoint))
    return Picture(
        endpoint_id=endpoint.id,
        name=endpoint.name,
        shares={
            item.model: show_share(endpoint.split.get(item.id, 0))
            for item in sorted(deployments, key=lambda item: item.model)
        },
        routing=_rename(to_builtins(endpoint.routing), names),
        regions=endpoint.regions,
        serving=[item for item in deployments if item.id in answering],
    )


def list_serving(endpoint: Endpoint) -> list[str]:
    """Return the ids of the deployments that may answer a call; a shadow answers none."""
    shadow = endpoint.routing.shadow
    named = [arm for arm in list_named(endpoint.routing) if not shadow or arm != shadow.arm]
    return list(dict.fromkeys([*endpoint.split, *named]))


def show_share(points: int) -> str:
    """Write basis points as a percentage: ``12.5``."""
    return f"{Decimal(points) * 100 / FULL_WEIGHT:f}" if points % 100 else str(points // 100)


def name_shares(name: str, shares: Mapping[str, str]) -> str:
    """Write a split as approvals name it: ``chat tiny@1.0.0=90,tiny@1.1.0=10``."""
    return f"{name} {','.join(f'{model}={shares[model]}' for model in sorted(shares))}"


def find_way(before: Picture, after: Picture | None) -> str:
    """Return in which way a change is made, in the words of decision records."""
    if after is None:
        return "direct"
    if after.routing.get("shadow") and not before.routing.get("shadow"):
        return "shadow"
    return "split" if len(after.moving) > 1 else "direct"


def find_way_back(before: Picture, after: Picture | None) -> tuple[str, str]:
    """Return what to go back to and the command for it; empty where nothing has moved."""
    if after is not None and before.moving == after.moving and before.routing == after.routing:
        return "", ""
    if after is None:
        return "an endpoint of this name", f"pilotage endpoints create {before.name}"
    if before.moving == after.moving:
        return "the routing before", f"pilotage endpoints route {before.name}"
    if not before.moving:
        (model, *_) = after.moving
        return "no traffic", f"pilotage endpoints undeploy {before.name} {model} --force"
    shares = " ".join(f"{model}={share}" for model, share in before.moving.items())
    return shares.replace(" ", ", "), f"pilotage endpoints split {before.name} {shares}"


def list_versions(before: Picture, after: Picture | None) -> Iterator[tuple[str, Deployment]]:
    """Yield the deployments that no longer serve (``before``) and those that begin (``after``)."""
    then = {item.id for item in after.serving} if after else set[str]()
    now = {item.id for item in before.serving}
    yield from (("before", item) for item in before.serving if item.id not in then)
    if after is not None:
        yield from (("after", item) for item in after.serving if item.id not in now)


def _rename(value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON of any kind
    """Put models in the place of the ids of deployments, wherever they stand."""
    if isinstance(value, dict):
        return {key: _rename(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rename(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
