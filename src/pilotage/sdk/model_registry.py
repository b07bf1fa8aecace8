"""``ModelRegistry``: models from Python, as ``infrastructure.vertex_ai`` has it.

There is no logic here: every method asks the control API and shows its answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pilotage.core.errors import PilotageError
from pilotage.sdk.held import hold_control
from pilotage.sdk.model_metadata import (
    DeploymentStage,
    ModelMetadata,
    ModelSource,
    RegisteredModel,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from pilotage.sdk.control import ControlClient

_PERFORMANCE = "metric.performance"
_COST = "metric.cost"
_IN_BUCKETS = "gs://"
_VERTEX_NAME = "vertex_ai_resource_name"  # where custom metadata keep it
_LARGEST_PAGE = 500
_NUMBERS = ("a", "b", "difference", "low", "high")


class ModelRegistry:
    """The registry of an installation; ``project_id`` is a namespace within it.

    The constructor does no I/O. The first awaited call finds the live server of the data folder, or
    opens its control plane in this process, and creates the project if there is none of its name.
    Use ``async with``, or call :meth:`aclose`. Refusals are raised as PilotageError, whose ``hint``
    says what to do.
    """

    def __init__(
        self,
        project_id: str | None = None,
        location: str = "us-central1",
        *,
        data_dir: str | None = None,
        reason: str = "",
    ) -> None:
        self.project_id = project_id or "default"
        self.location = location
        self._held = hold_control(self.project_id, data_dir, reason)

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

    async def upload_model(self, metadata: ModelMetadata) -> RegisteredModel:
        """Register a version, and its metrics as evidence.

        An ``artifact_uri`` that begins with ``gs://`` is stored and inspected; ``gs://BUCKET/PATH``
        is ``gs/BUCKET/PATH`` in the data folder. Raises ``not_found`` for an artifact that is not
        there, ``already_exists`` for a version that is, ``invalid_request`` for one that would not
        begin in development.
        """
        if metadata.deployment_stage is not DeploymentStage.DEVELOPMENT:
            raise PilotageError(
                "invalid_request",
                f"{metadata.name}@{metadata.version} cannot begin in "
                f"{metadata.deployment_stage.value}.",
                hint="Upload it for development, then promote it step by step.",
                param="deployment_stage",
            )
        control = await self._held.open()
        body = _make_version(metadata)
        if metadata.artifact_uri and "://" not in metadata.artifact_uri:
            raise PilotageError(
                "invalid_request",
                f"{metadata.artifact_uri!r} is no address of an artifact.",
                hint="Write gs://BUCKET/PATH: it is gs/BUCKET/PATH in the data folder.",
                param="artifact_uri",
            )
        if metadata.artifact_uri.startswith(_IN_BUCKETS):
            started = await control.post("/artifacts:import", {"uri": metadata.artifact_uri})
            body["artifact_sha256"] = (await control.finish(started))["sha256"]
        is_first = await control.find(_at(metadata.name)) is None
        if is_first:
            await control.post("/models", {"name": metadata.name})
        try:
            made = await control.post(f"{_at(metadata.name)}/versions", body)
        except PilotageError:
            if is_first:
                await control.delete(_at(metadata.name))
            raise
        place = _at(metadata.name, metadata.version)
        await _add_metrics(control, place, _PERFORMANCE, metadata.performance_metrics, {})
        await _add_metrics(control, place, _COST, metadata.cost_metrics, {})
        return self._show_model(made)

    async def get_model(self, name: str, version: str) -> tuple[RegisteredModel, ModelMetadata]:
        """Return a version and what is known of it; raise ``not_found``."""
        control = await self._held.open()
        found = await control.get(_at(name, version))
        return self._show_model(found), await _describe(control, found)

    async def list_models(
        self,
        stage: DeploymentStage | None = None,
        source: ModelSource | None = None,
        tags: Sequence[str] | None = None,
        limit: int = 100,
    ) -> list[ModelMetadata]:
        """Return the newest versions that are at a stage, from a source and have all the tags.

        The limit counts what was found, not what was looked through.
        """
        control = await self._held.open()
        query = {
            "stage": stage.value if stage else None,
            "source": source.value if source else None,
            "tag": ",".join(tags) if tags else None,
        }
        found: list[dict[str, Any]] = []
        if limit > 0:
            page = min(limit, _LARGEST_PAGE)
            async for item in control.list("/versions", sort="newest", limit=page, **query):
                found.append(item)
                if len(found) == limit:
                    break
        return list(await asyncio.gather(*(_describe(control, item) for item in found)))

    async def promote_model(
        self, name: str, version: str, stage: DeploymentStage, reason: str = ""
    ) -> ModelMetadata:
        """Move a version to the next stage, and return what is known of it then.

        Raises ``conflict`` for a stage that would be skipped, and what the gates and approvals of
        the stage raise where they are not met.
        """
        control = await self._held.open()
        target = DeploymentStage(stage).value
        await control.post(f"{_at(name, version)}:promote", {"stage": target, "reason": reason})
        return await _describe(control, await control.get(_at(name, version)))

    async def update_performance_metrics(
        self,
        name: str,
        version: str,
        metrics: Mapping[str, float],
        **provenance: Any,  # noqa: ANN401 - fields of evidence
    ) -> ModelMetadata:
        """Add measurements as evidence; earlier ones of the same names are kept as history.

        ``provenance`` says where they come from: ``run_id``, ``dataset_version_id``, ``tool``,
        ``n`` (samples), ``hash``, ``note``, ``unit``.
        """
        return await self._update(name, version, _PERFORMANCE, metrics, provenance)

    async def update_cost_metrics(
        self,
        name: str,
        version: str,
        metrics: Mapping[str, float],
        **provenance: Any,  # noqa: ANN401 - fields of evidence
    ) -> ModelMetadata:
        """Add costs as :meth:`update_performance_metrics` does; ``unit`` is USD by default."""
        return await self._update(name, version, _COST, metrics, {"unit": "USD"} | provenance)

    async def compare_versions(self, name: str, version_a: str, version_b: str) -> dict[str, Any]:
        """Compare what was measured of two versions.

        Return version_a, version_b, performance_diff and cost_diff (by metric: a, b, difference,
        percent, their interval and a verdict; what was not measured is None) and recommendation.
        """
        control = await self._held.open()
        found = await control.get(f"{_at(name)}:compare", a=version_a, b=version_b)
        return {
            "version_a": version_a,
            "version_b": version_b,
            "performance_diff": _read_numbers(found["performance_diff"]),
            "cost_diff": _read_numbers(found["cost_diff"]),
            "recommendation": found["recommendation"],
        }

    async def delete_model(
        self, name: str, version: str, *, delete_from_vertex_ai: bool = False
    ) -> None:
        """Delete a version; raise ``conflict`` while it is deployed."""
        if delete_from_vertex_ai:
            raise PilotageError(
                "unsupported",
                "This installation keeps no models in Vertex AI.",
                hint="Leave delete_from_vertex_ai out.",
                param="delete_from_vertex_ai",
            )
        control = await self._held.open()
        await control.delete(_at(name, version))

    async def _update(
        self,
        name: str,
        version: str,
        kind: str,
        metrics: Mapping[str, float],
        provenance: Mapping[str, object],
    ) -> ModelMetadata:
        control = await self._held.open()
        place = _at(name, version)
        await _add_metrics(control, place, kind, metrics, provenance)
        return await _describe(control, await control.get(place))

    def _show_model(self, found: Mapping[str, Any]) -> RegisteredModel:
        own = f"projects/{self.project_id}/locations/{self.location}/models/{found['ref']}"
        return RegisteredModel(
            id=found["id"],
            name=found["model"],
            version=found["version"],
            resource_name=found["custom_metadata"].get(_VERTEX_NAME) or own,
            artifact_sha256=found["artifact_sha256"],
        )


def _at(name: str, version: str = "") -> str:
    """Return the path of a model or of a version of it."""
    place = f"/models/{quote(name, safe='')}"
    return f"{place}/versions/{quote(version, safe='+')}" if version else place


def _make_version(metadata: ModelMetadata) -> dict[str, Any]:
    parent, custom = metadata.parent_version or "", dict(metadata.custom_metadata)
    if parent and "@" not in parent:
        parent = f"{metadata.name}@{parent}"
    if metadata.vertex_ai_resource_name:
        custom[_VERTEX_NAME] = metadata.vertex_ai_resource_name
    return {
        "version": metadata.version,
        "source": metadata.source.value,
        "description": metadata.description,
        "display_name": metadata.display_name,
        "base_model": metadata.base_model or "",
        "parent": parent,
        "artifact_uri": metadata.artifact_uri,
        "serving_container_uri": metadata.serving_container_uri,
        "custom_metadata": custom,
        "tags": metadata.tags,
    }


async def _add_metrics(
    control: ControlClient,
    place: str,
    kind: str,
    metrics: Mapping[str, float],
    provenance: Mapping[str, object],
) -> None:
    """Add a row of evidence for each metric; numbers travel as text, so that none is rounded."""
    items = [
        {"tool": "ModelRegistry", **provenance, "kind": kind, "subject": name, "value": str(value)}
        for name, value in metrics.items()
    ]
    if items:
        await control.post(f"{place}/evidence", {"items": items})


async def _describe(control: ControlClient, found: Mapping[str, Any]) -> ModelMetadata:
    """Return a version of the API as ``infrastructure.vertex_ai`` has it."""
    metrics: dict[str, dict[str, float]] = {_PERFORMANCE: {}, _COST: {}}
    place = _at(found["model"], found["version"])
    async for item in control.list(f"{place}/evidence", limit=_LARGEST_PAGE):
        if item["kind"] in metrics and item["value"] is not None:
            metrics[item["kind"]].setdefault(item["subject"], float(item["value"]))
    custom = dict(found["custom_metadata"])
    return ModelMetadata.from_dict(
        {
            "name": found["model"],
            "version": found["version"],
            "display_name": found["display_name"],
            "description": found["description"],
            "source": found["source"],
            "artifact_uri": found["artifact_uri"],
            "serving_container_uri": found["serving_container_uri"],
            "deployment_stage": found["stage"],
            "base_model": found["base_model"] or None,
            "performance_metrics": metrics[_PERFORMANCE],
            "cost_metrics": metrics[_COST],
            "tags": list(found["tags"]),
            "created_at": found["created_at"],
            "updated_at": found["updated_at"],
            "created_by": found["created_by"],
            "parent_version": await _name_parent(control, found),
            "vertex_ai_resource_name": custom.pop(_VERTEX_NAME, None),
            "custom_metadata": custom,
        }
    )


async def _name_parent(control: ControlClient, found: Mapping[str, Any]) -> str | None:
    """Return the version that a version was made of, as it is given to :meth:`upload_model`."""
    parent_id = found["parent_version_id"]
    if parent_id is None:
        return None
    lineage = await control.get("/lineage", of=found["ref"], direction="ancestors", steps=1)
    refs = {node["id"]: node["ref"] for node in lineage["nodes"]}
    name, _, version = (refs.get(parent_id) or "").rpartition("@")
    return version if name == found["model"] else refs.get(parent_id) or parent_id


def _read_numbers(differences: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return differences with numbers in place of the API's decimal text."""
    return {
        name: {
            key: float(value) if key in _NUMBERS and value is not None else value
            for key, value in item.items()
        }
        for name, item in differences.items()
    }
