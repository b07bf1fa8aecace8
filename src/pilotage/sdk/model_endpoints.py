"""``ModelEndpoints``: endpoints from Python, as ``infrastructure.vertex_ai`` has them.

There is no logic here: every method asks the control API, or the gateway for predictions, and shows
the answer.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import SystemClock
from pilotage.sdk.endpoint_config import (
    ALL,
    AutoScalingConfig,
    EndpointConfig,
    ModelEndpoint,
    TrafficSplit,
    TrafficSplitStrategy,
)
from pilotage.sdk.serving import hold_serving
from pilotage.sdk.shares import Move, find_deployed, find_move, make_room

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from pilotage.sdk.control import ControlClient

_LARGEST_PAGE = 500
_USUAL_STEPS = (5.0, 25.0, 50.0)
_AT_ONCE = (TrafficSplitStrategy.SINGLE, TrafficSplitStrategy.AB_TEST)
_REASON = "asked for from Python"


class ModelEndpoints:
    """The endpoints of a project: what models answer, how much traffic each has, predictions.

    An endpoint is named by its name, its id, or a resource name that ends with one of them. The
    constructor does no I/O. The first awaited call finds the live server of the data folder, or
    starts one that ends with this object, and creates the project if there is none of its name.
    Predictions go through the gateway with ``api_key``, or with a key of the project's default
    tenant: they count against its limits and are on its bill. Use ``async with``, or call
    :meth:`aclose`. Refusals are raised as PilotageError.
    """

    def __init__(
        self,
        project_id: str | None = None,
        location: str = "us-central1",
        *,
        data_dir: str | None = None,
        api_key: str | None = None,
        reason: str = "",
    ) -> None:
        self.project_id = project_id or "default"
        self.location = location
        self._reason = reason or _REASON
        self._held = hold_serving(self.project_id, data_dir, reason, api_key)

    async def __aenter__(self) -> Self:
        await self._held.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close everything that was opened."""
        await self._held.close()

    async def create_endpoint(self, config: EndpointConfig, sync: bool = True) -> ModelEndpoint:  # noqa: FBT001, FBT002
        """Create an endpoint, and split its traffic where the configuration says how.

        One of the same name and settings that is there already is the one that is returned; with
        other settings it is ``already_exists``. An endpoint is there at once: ``sync`` is taken for
        the name's sake.
        """
        del sync
        config.validate()
        _refuse_unsupported(config)
        control = await self._open()
        body = _describe(config)
        found = await control.find(_at(config.name))
        if found is None and config.traffic_split is not None:
            raise PilotageError(
                "invalid_request",
                "Nothing is deployed on a new endpoint that traffic could be split between.",
                hint="Deploy models first, then call update_traffic_split.",
                param="traffic_split",
            )
        if found is None:
            found = await control.post("/endpoints", {"name": config.name} | body)
        else:
            _check_same(config.name, found, body)
        if config.traffic_split is not None:
            await self.update_traffic_split(config.name, config.traffic_split)
            found = await control.get(_at(config.name))
        return self._show(found)

    async def deploy_model(
        self,
        endpoint_id: str,
        model_name: str,
        model_version: str,
        traffic_percentage: float = 100,
        *,
        auto_scaling: AutoScalingConfig | None = None,
        sync: bool = True,
    ) -> str:
        """Deploy a model version and give it its share of the traffic; return its id there.

        The others keep their proportions of what is left. Traffic moves once the model is ready;
        without ``sync`` nobody waits for that, so a share needs an endpoint without traffic. One
        that is deployed already only gets its share.
        """
        control = await self._open()
        ref = f"{model_name}@{model_version}"
        endpoint = await _get(control, endpoint_id)
        is_waited_for = sync or not traffic_percentage or not _list_serving(endpoint)
        if not is_waited_for:
            raise PilotageError(
                "unsupported",
                f"Traffic goes to {ref} once it is ready, and nobody waits for that.",
                hint="Deploy with sync=True, or traffic_percentage=0 and split later.",
                param="sync",
            )
        if ref not in {item["model"] for item in endpoint["deployments"]}:
            body: dict[str, Any] = {"model": ref}
            if auto_scaling is not None:
                auto_scaling.validate()
                body["scaling"] = _write_scaling(auto_scaling)
            started = await control.post(f"{_at(endpoint['name'])}/deployments", body)
            if sync:
                await control.finish(started)
            endpoint = await _get(control, endpoint["id"])
        deployed = find_deployed(endpoint["deployments"], ref)
        await _give(control, endpoint, deployed, traffic_percentage)
        return deployed

    async def predict(
        self,
        endpoint_id: str,
        instances: Sequence[Any],
        parameters: Mapping[str, Any] | None = None,
        timeout: float = 60.0,  # noqa: ASYNC109 - a name that callers use
    ) -> dict[str, Any]:
        """Return predictions, deployed_model_id and latency_ms for instances, each asked by itself.

        An instance is a text, ``{"prompt": "..."}``, or ``{"messages": [...]}``; the prediction of
        the first two has ``content``, that of the third is a whole chat completion. Raises
        ``deadline`` after ``timeout`` seconds. ``deployed_model_id`` is "" where several answered.
        """
        serving = await self._held.open()
        endpoint = await _get(serving.control, endpoint_id)
        clock = SystemClock()
        began_s = clock.monotonic_s()
        try:
            async with asyncio.timeout(timeout):
                found = await serving.predict(endpoint["name"], instances, parameters or {})
        except TimeoutError:
            raise PilotageError(
                "deadline", f"{endpoint['name']!r} did not answer within {timeout:g} s."
            ) from None
        return {
            "predictions": found["predictions"],
            "deployed_model_id": found.get("deployedModelId", ""),
            "latency_ms": (clock.monotonic_s() - began_s) * 1000,
        }

    async def update_traffic_split(
        self, endpoint_id: str, traffic_split: TrafficSplit
    ) -> dict[str, Any]:
        """Move traffic as a split and its strategy say.

        Return endpoint, strategy, splits (percentages by deployed model's id, as they are now) and
        rollout, the id of the rollout that was begun, or None.
        """
        traffic_split.validate()
        control = await self._open()
        endpoint = await _get(control, endpoint_id)
        splits: dict[str, float] = {}
        for name, percent in traffic_split.splits.items():
            deployed = find_deployed(endpoint["deployments"], name)
            splits[deployed] = splits.get(deployed, 0.0) + percent
        rollout: str | None = None
        if traffic_split.strategy in _AT_ONCE:
            shares = {name: f"{percent:.10g}" for name, percent in splits.items() if percent}
            place = f"{_at(endpoint['name'])}/split"
            await control.put(place, {"split": shares}, endpoint["rev"])
        else:
            move = find_move(endpoint["deployments"], splits)
            body = _make_rollout(traffic_split.strategy, move)
            said = {"endpoint": endpoint["name"], "reason": self._reason}
            rollout = (await control.post("/rollouts", body | said))["id"]
        return {
            "endpoint": endpoint["name"],
            "strategy": traffic_split.strategy.value,
            "splits": _read_split(await _get(control, endpoint["id"])),
            "rollout": rollout,
        }

    async def undeploy_model(
        self,
        endpoint_id: str,
        deployed_model_id: str,
        force: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Remove a deployed model; refused while it takes traffic, unless ``force`` is true."""
        control = await self._open()
        endpoint = await _get(control, endpoint_id)
        deployed = find_deployed(endpoint["deployments"], deployed_model_id)
        await control.delete(f"{_at(endpoint['name'])}/deployments/{deployed}", force=force)

    async def delete_endpoint(self, endpoint_id: str, force: bool = False) -> None:  # noqa: FBT001, FBT002
        """Delete an endpoint; refused while models are deployed, unless ``force`` is true."""
        control = await self._open()
        endpoint = await _get(control, endpoint_id)
        await control.delete(_at(endpoint["name"]), force=force)

    async def list_endpoints(
        self, filter_labels: Mapping[str, str] | None = None, limit: int = 100
    ) -> list[ModelEndpoint]:
        """Return endpoints that have all of some labels, by name."""
        control = await self._open()
        labels = ",".join(f"{name}={value}" for name, value in (filter_labels or {}).items())
        found: list[ModelEndpoint] = []
        if limit > 0:
            page = min(limit, _LARGEST_PAGE)
            async for item in control.list("/endpoints", labels=labels or None, limit=page):
                found.append(self._show(item))
                if len(found) == limit:
                    break
        return found

    async def get_endpoint_stats(self, endpoint_id: str) -> dict[str, Any]:
        """Return name, resource_name, deployed_models, total_traffic_percentage and status.

        The status is ``healthy`` where all models that take traffic are ready, ``degraded`` where
        some are, ``unhealthy`` where none is, and ``empty`` without traffic.
        """
        found = await _get(await self._open(), endpoint_id)
        return {
            "name": found["name"],
            "resource_name": self._name(found),
            "deployed_models": [
                {
                    "id": item["id"],
                    "model": item["model"],
                    "traffic_percentage": item["percent"],
                    "state": item["state"],
                    "detail": item["detail"],
                    "restarts": item["restarts"],
                }
                for item in found["deployments"]
            ],
            "total_traffic_percentage": sum(item["percent"] for item in found["deployments"]),
            "status": _judge(found),
        }

    async def _open(self) -> ControlClient:
        return (await self._held.open()).control

    def _name(self, found: Mapping[str, Any]) -> str:
        return f"projects/{self.project_id}/locations/{self.location}/endpoints/{found['name']}"

    def _show(self, found: Mapping[str, Any]) -> ModelEndpoint:
        return ModelEndpoint(
            name=found["name"],
            resource_name=self._name(found),
            display_name=found["display_name"],
            description=found["description"],
            labels=found["labels"],
            dedicated_endpoint=found["dedicated"],
            traffic_split=_read_split(found),
            create_time=datetime.fromisoformat(found["created_at"]),
        )


def _at(name: str) -> str:
    return f"/endpoints/{quote(name, safe='/:')}"


async def _get(control: ControlClient, endpoint_id: str) -> dict[str, Any]:
    """Return an endpoint by what it may be called; raise ``not_found``."""
    return await control.get(_at(endpoint_id.rpartition("/endpoints/")[2]))


async def _give(
    control: ControlClient, endpoint: Mapping[str, Any], deployed: str, percent: float
) -> None:
    """Give a deployed model its share of the traffic, unless it has it."""
    now = _read_split(endpoint)
    if now.get(deployed, 0.0) == percent:
        return
    split = make_room(endpoint["deployments"], deployed, percent)
    await control.put(f"{_at(endpoint['name'])}/split", {"split": split}, endpoint["rev"])


def _refuse_unsupported(config: EndpointConfig) -> None:
    """Raise ``unsupported`` for what an endpoint here does not have."""
    refused = {
        "network": bool(config.network),
        "enable_request_logging": not config.enable_request_logging,
        "enable_access_logging": not config.enable_access_logging,
        "enable_container_logging": not config.enable_container_logging,
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise PilotageError(
                "unsupported",
                f"{name}: gateways are reached where they listen, and calls are always on record.",
                hint=f"Leave {name} out.",
                param=name,
            )


def _describe(config: EndpointConfig) -> dict[str, Any]:
    return {
        "display_name": config.display_name,
        "description": config.description,
        "labels": config.labels,
        "dedicated": config.dedicated_endpoint,
        "machine": {
            "type": config.machine_type,
            "accelerator": config.accelerator_type or "",
            "accelerators": config.accelerator_count,
            "spot": config.spot_instance,
        },
        "scaling": _write_scaling(config.auto_scaling),
    }


def _write_scaling(scaling: AutoScalingConfig) -> dict[str, int]:
    delay_s = round(scaling.scale_down_delay_minutes * 60)
    return {
        "min_replicas": 0 if scaling.enable_scale_to_zero else scaling.min_replica_count,
        "max_replicas": scaling.max_replica_count,
        "target_duty_percent": scaling.target_accelerator_duty_cycle,
        "scale_down_delay_s": delay_s,
        "idle_after_s": delay_s,
    }


def _check_same(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for field, value in wanted.items():
        now = found[field]
        if isinstance(value, dict) and field != "labels":
            now = {key: now[key] for key in value}
        if now != value:
            raise PilotageError(
                "already_exists",
                f"There is an endpoint {name!r} already, with another {field}.",
                hint="Choose another name, or change what there is: pilotage endpoints change",
                param=field,
            )


def _make_rollout(strategy: TrafficSplitStrategy, move: Move) -> dict[str, Any]:
    body: dict[str, Any] = {"candidate": move.candidate}
    if strategy is TrafficSplitStrategy.CANARY and move.percent < ALL:
        step = {"weight": f"{move.percent:.10g}%", "approval": True}
        return body | {"strategy": "canary", "steps": [step]}
    if move.percent < ALL:
        raise PilotageError(
            "invalid_request",
            f"{strategy.name} ends with all the traffic, not with {move.percent:g} %.",
            hint="Give the new model 100, or use CANARY to stay at a share.",
            param="splits",
        )
    if strategy is TrafficSplitStrategy.BLUE_GREEN:
        return body | {"strategy": "blue_green"}
    steps = [{"weight": f"{weight:g}%"} for weight in _USUAL_STEPS]
    return body | {"strategy": "canary", "steps": steps}


def _read_split(found: Mapping[str, Any]) -> dict[str, float]:
    return {item["id"]: item["percent"] for item in found["deployments"] if item["percent"]}


def _list_serving(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [item for item in found["deployments"] if item["percent"]]


def _judge(found: Mapping[str, Any]) -> str:
    ready = [item["state"] == "ready" for item in _list_serving(found)]
    if not ready:
        return "empty"
    if all(ready):
        return "healthy"
    return "degraded" if any(ready) else "unhealthy"
