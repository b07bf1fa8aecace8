"""Control-plane routes of datasets."""

from datetime import datetime
from typing import Any

from pydantic import Field

from pilotage.core.errors import PilotageError
from pilotage.kit.api import ApiCall, Body, Page, RawReply, RevisedView, Route, View, make_page
from pilotage.kit.clock import parse_time, to_datetime
from pilotage.kit.operations import OperationKind, Operations, Progress
from pilotage.kit.operations_http import OperationView
from pilotage.registry.datasets.files import DatasetFiles
from pilotage.registry.datasets.service import DatasetService
from pilotage.registry.datasets.types import (
    DataFile,
    DatasetDraft,
    DatasetVersion,
    Numbering,
    PiiHandling,
)

KIND_PUSH = OperationKind("registry.datasets.push", "registry.datasets.push")
READ = "registry.datasets.read"


class DatasetBody(Body):
    """A dataset to create; ``numbering`` of its versions is semver or date."""

    name: str
    description: str = ""
    owner: str = ""
    tags: list[str] = Field(default_factory=list)
    numbering: str = Numbering.SEMVER


class DatasetChange(Body):
    """What shall be said of a dataset."""

    description: str = ""
    owner: str = ""
    tags: list[str] = Field(default_factory=list)


class DatasetView(RevisedView):
    """A dataset."""

    name: str
    project_id: str
    description: str
    owner: str
    tags: list[str]
    numbering: str
    created_at: datetime
    created_by: str


class DatasetVersionBody(Body):
    """A version to make of uploaded blobs: the SHA-256 of each file by its path, by split.

    Splits are train, validation and test; formats jsonl, csv and parquet. ``leak_reason`` says why
    the same record may be in two splits. ``keep_until`` is a date or a time: it is kept until then,
    and deleted after it.
    """

    version: str
    format: str
    files: dict[str, dict[str, str]] = Field(min_length=1)
    license: str = ""
    source: str = ""
    description: str = ""
    pii: str = PiiHandling.UNKNOWN
    pii_scanned_by: str = ""
    pii_findings: dict[str, int] = Field(default_factory=dict)
    keep_until: str | None = None
    derived_from: str = ""
    leak_reason: str = ""


class SplitView(View):
    """What a split comes to."""

    name: str
    files: int
    records: int
    bytes: int


class DatasetVersionView(RevisedView):
    """A version of a dataset; ``ref`` is how to name it.

    ``schema_summary`` counts the types of each field. ``duplicates`` and ``leaks`` (records in two
    splits) are null where records are not compared, as of parquet files.
    """

    ref: str
    dataset: str
    dataset_id: str
    project_id: str
    version: str
    manifest_sha256: str
    format: str
    license: str
    source: str
    description: str
    splits: list[SplitView]
    schema_summary: dict[str, dict[str, int]]
    records: int
    size_bytes: int
    duplicates: int | None
    leaks: dict[str, int] | None
    leak_reason: str
    pii: str
    pii_scanned_by: str
    pii_findings: dict[str, int]
    keep_until: datetime | None
    hold_reason: str
    blocked_by: str
    derived_from_id: str
    created_at: datetime
    created_by: str


class RetentionBody(Body):
    """Until when a version is kept, and why it is held beyond that ("" for no hold)."""

    keep_until: str | None = None
    hold_reason: str = ""


class DataFileView(View):
    """A file of a version; ``place`` is its split and its path."""

    place: str
    split: str
    path: str
    sha256: str
    size: int
    records: int


class DatasetDiffView(View):
    """What another version has that this one has not, and so on; pairs are (this, other)."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    records: dict[str, tuple[int, int]]
    fields: dict[str, tuple[list[str], list[str]]]


class ReleaseBody(Body):
    """The version that a release shall point to."""

    version: str


class ReleaseView(RevisedView):
    """A name that points to a version."""

    name: str
    dataset_id: str
    version_id: str
    version: str
    changed_at: datetime
    changed_by: str


def dataset_routes(
    service: DatasetService, files: DatasetFiles, operations: Operations
) -> list[Route]:
    """List the routes of datasets."""
    return [
        *_dataset_routes(service),
        *_making_routes(service, files, operations),
        *_version_routes(service, files),
        *_release_routes(service),
    ]


def _dataset_routes(service: DatasetService) -> list[Route]:
    async def create_dataset(call: ApiCall, body: DatasetBody) -> DatasetView:
        """Create a dataset."""
        async with call.write() as tx:
            return DatasetView.of(await service.create_dataset(tx, **body.model_dump()))

    async def list_datasets(call: ApiCall, limit: int = 50, after: str = "") -> Page[DatasetView]:
        """List datasets by name."""
        async with call.read() as tx:
            found = await service.list_datasets(tx, after, limit + 1)
        return make_page(found, limit, DatasetView.of, "name")

    async def get_dataset(call: ApiCall, dataset: str) -> DatasetView:
        """Show a dataset."""
        async with call.read() as tx:
            return DatasetView.of(await service.get_dataset(tx, dataset))

    async def change_dataset(call: ApiCall, dataset: str, body: DatasetChange) -> DatasetView:
        """Change what is said of a dataset."""
        async with call.write() as tx:
            changed = await service.change_dataset(
                tx, dataset, expected_rev=call.expected_rev, **body.model_dump()
            )
        return DatasetView.of(changed)

    async def delete_dataset(call: ApiCall, dataset: str) -> None:
        """Delete a dataset and its versions; refused while one of them must stay."""
        async with call.write() as tx:
            await service.delete_dataset(tx, dataset)

    path, one = "/datasets", "/datasets/{dataset}"
    return [
        _route("POST", path, "registry.datasets.create", create_dataset, 201),
        _route("GET", path, READ, list_datasets),
        _route("GET", one, READ, get_dataset),
        _route("PUT", one, "registry.datasets.change", change_dataset),
        _route("DELETE", one, "registry.datasets.delete", delete_dataset, 204),
    ]


def _making_routes(
    service: DatasetService, files: DatasetFiles, operations: Operations
) -> list[Route]:
    async def create_dataset_version(
        call: ApiCall, dataset: str, body: DatasetVersionBody
    ) -> OperationView:
        """Make a version of uploaded files; every record of them is read first."""
        said = body.model_dump(exclude={"keep_until"})
        draft = DatasetDraft(**said, keep_until_us=_time(body.keep_until))
        async with call.read() as tx:
            name = (await service.get_dataset(tx, dataset)).name

        async def work(progress: Progress) -> object:
            progress("read")
            async with files.take_version(call.actor, name, draft) as taken, call.write() as tx:
                made = await service.add_version(tx, taken.version, taken.files)
            return {"dataset": made.ref, "id": made.id}

        subject = f"{name}@{body.version}"
        return OperationView.of(await operations.start(call.actor, KIND_PUSH, subject, work))

    path = "/datasets/{dataset}/versions"
    return [_route("POST", path, "registry.datasets.push", create_dataset_version, 202)]


def _version_routes(service: DatasetService, files: DatasetFiles) -> list[Route]:
    async def list_dataset_versions(
        call: ApiCall, dataset: str, limit: int = 50, after: str = ""
    ) -> Page[DatasetVersionView]:
        """List the versions of a dataset, lowest first."""
        async with call.read() as tx:
            found = await service.list_versions(tx, dataset, after, limit + 1)
        return make_page(found, limit, _show_version, "version")

    async def get_dataset_version(
        call: ApiCall, dataset: str, dataset_version: str
    ) -> DatasetVersionView:
        """Show a version of a dataset, by its number or a release."""
        async with call.read() as tx:
            return _show_version(await service.get_version(tx, f"{dataset}@{dataset_version}"))

    async def retain_dataset_version(
        call: ApiCall, dataset: str, dataset_version: str, body: RetentionBody
    ) -> DatasetVersionView:
        """Say until when a version is kept, and hold it beyond that or let it go."""
        async with call.write() as tx:
            retained = await service.retain_version(
                tx,
                f"{dataset}@{dataset_version}",
                keep_until_us=_time(body.keep_until),
                hold_reason=body.hold_reason,
                expected_rev=call.expected_rev,
            )
        return _show_version(retained)

    async def delete_dataset_version(call: ApiCall, dataset: str, dataset_version: str) -> None:
        """Delete a version; refused while it is kept, held or referred to."""
        async with call.write() as tx:
            await service.delete_version(tx, f"{dataset}@{dataset_version}")

    async def list_dataset_files(
        call: ApiCall, dataset: str, dataset_version: str, limit: int = 50, after: str = ""
    ) -> Page[DataFileView]:
        """List the files of a version by split and path."""
        async with call.read() as tx:
            ref = f"{dataset}@{dataset_version}"
            found = await service.list_files(tx, ref, after, limit + 1)
        shown = [_show_file(file) for file in found]
        return make_page(shown, limit, lambda file: file, "place")

    async def get_dataset_content(
        call: ApiCall, dataset: str, dataset_version: str, place: str = ""
    ) -> RawReply:
        """Fetch the bytes of a file by its ``place``, or of the version's manifest."""
        async with call.read() as tx:
            ref = f"{dataset}@{dataset_version}"
            blob = (await service.get_version(tx, ref)).manifest_sha256
            if place:
                split, _, path = place.partition("/")
                blob = (await service.get_file(tx, ref, split, path)).sha256
        return RawReply(body=files.files.blobs.path_of(blob))

    async def compare_dataset_versions(
        call: ApiCall, dataset: str, dataset_version: str, other: str = ""
    ) -> DatasetDiffView:
        """Say what is different in another version, by default the highest."""
        async with call.read() as tx:
            second = f"{dataset}@{other}" if other else dataset
            found = await service.compare_versions(tx, f"{dataset}@{dataset_version}", second)
        return DatasetDiffView.of(found)

    many = "/datasets/{dataset}/versions"
    one = f"{many}/{{dataset_version}}"
    return [
        _route("GET", many, READ, list_dataset_versions),
        _route("GET", f"{one}:diff", READ, compare_dataset_versions),
        _route("GET", one, READ, get_dataset_version),
        _route("GET", f"{one}/files", READ, list_dataset_files),
        _route("GET", f"{one}/content", READ, get_dataset_content),
        _route("PUT", one, "registry.datasets.retain", retain_dataset_version),
        _route("DELETE", one, "registry.datasets.delete", delete_dataset_version, 204),
    ]


def _release_routes(service: DatasetService) -> list[Route]:
    async def list_dataset_releases(
        call: ApiCall, dataset: str, limit: int = 50, after: str = ""
    ) -> Page[ReleaseView]:
        """List the releases of a dataset by name."""
        async with call.read() as tx:
            found = await service.list_releases(tx, dataset, after, limit + 1)
        return make_page(found, limit, ReleaseView.of, "name")

    async def get_dataset_release(call: ApiCall, dataset: str, dataset_release: str) -> ReleaseView:
        """Show where a release points."""
        async with call.read() as tx:
            return ReleaseView.of(await service.get_release(tx, dataset, dataset_release))

    async def move_dataset_release(
        call: ApiCall, dataset: str, dataset_release: str, body: ReleaseBody
    ) -> ReleaseView:
        """Make a release point to a version; the first time, create it."""
        async with call.write() as tx:
            moved = await service.release_version(
                tx, dataset, dataset_release, body.version, call.expected_rev
            )
        return ReleaseView.of(moved)

    async def remove_dataset_release(call: ApiCall, dataset: str, dataset_release: str) -> None:
        """Remove a release; the version stays."""
        async with call.write() as tx:
            await service.delete_release(tx, dataset, dataset_release)

    many, change = "/datasets/{dataset}/releases", "registry.datasets.release"
    one = f"{many}/{{dataset_release}}"
    return [
        _route("GET", many, READ, list_dataset_releases),
        _route("GET", one, READ, get_dataset_release),
        _route("PUT", one, change, move_dataset_release),
        _route("DELETE", one, change, remove_dataset_release, 204),
    ]


def _route(method: Any, path: str, permission: str, handler: Any, status: int = 200) -> Route:  # noqa: ANN401 - as Route takes them
    return Route(method=method, path=path, permission=permission, handler=handler, status=status)


def _show_version(version: DatasetVersion) -> DatasetVersionView:
    return DatasetVersionView.of(
        version,
        splits=[SplitView.of(split) for split in version.splits],
        schema_summary=version.schema,
        keep_until=to_datetime(version.keep_until_us),
    )


def _show_file(file: DataFile) -> DataFileView:
    return DataFileView.of(file, place=f"{file.split}/{file.path}")


def _time(text: str | None) -> int | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as wrong:
        raise PilotageError(
            "invalid_request", f"keep_until: {wrong}.", param="keep_until"
        ) from None
