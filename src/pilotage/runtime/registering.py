"""How the registry is wired: models, their files, datasets, prompts, and their routes."""

from pathlib import Path

from pilotage.endpoints.service import EndpointService
from pilotage.governance.service import GovernanceService
from pilotage.kit.api import Route
from pilotage.kit.blobs_file import FileBlobs
from pilotage.kit.clock import Clock
from pilotage.kit.db import Database
from pilotage.kit.operations import Operations
from pilotage.kit.worker import Worker
from pilotage.registry.artifacts.files import ArtifactFiles
from pilotage.registry.artifacts.garbage import GarbageCollector
from pilotage.registry.artifacts.http import artifact_routes
from pilotage.registry.datasets.files import DatasetFiles
from pilotage.registry.datasets.http import dataset_routes
from pilotage.registry.datasets.service import DatasetService
from pilotage.registry.datasets.worker import make_retention_worker
from pilotage.registry.evidence_http import evidence_routes
from pilotage.registry.http import registry_routes
from pilotage.registry.prompts.http import prompt_routes
from pilotage.registry.prompts.service import PromptService
from pilotage.registry.pull import ModelFiles
from pilotage.registry.service import RegistryService
from pilotage.registry.versions_http import version_routes


class Registering:
    """The registry with the files that it is about."""

    def __init__(
        self, db: Database, clock: Clock, blobs: FileBlobs, governance: GovernanceService
    ) -> None:
        self._db = db
        self._clock = clock
        self._blobs = blobs
        self.service = RegistryService(clock, governance)
        self.prompts = PromptService(clock, governance)
        self._datasets = DatasetService(clock, self.service.lineage)

    def list_routes(
        self, endpoints: EndpointService, operations: Operations, bucket: Path, downloads: Path
    ) -> list[Route]:
        """List the routes; ``bucket`` is where ``gs://`` addresses lie, ``downloads`` a cache."""
        stored = self.service.artifacts
        artifacts = ArtifactFiles(self._db, stored, self._blobs, bucket)
        files = ModelFiles(self._db, self.service, artifacts, operations, downloads)
        garbage = GarbageCollector(self._db, stored, self._blobs, self._clock)
        data = DatasetFiles(self._db, self._clock, self._datasets, stored, artifacts)
        return [
            *evidence_routes(self.service),
            *version_routes(self.service),
            *registry_routes(self.service, files, endpoints.is_deployed),
            *artifact_routes(stored, artifacts, operations, garbage),
            *dataset_routes(self._datasets, data, operations),
            *prompt_routes(self.prompts),
        ]

    def make_worker(self) -> Worker:
        """Return the worker that deletes datasets whose time is over."""
        return make_retention_worker(self._db, self._datasets)
