"""Kinds of the registry: models and their versions."""

from pilotage.cli.objects.kinds.base import Object
from pilotage.core.names import check_name
from pilotage.core.semver import parse_semver


class ModelObject(Object, frozen=True):
    """A model; what is left out stays as it is."""

    name: str
    description: str | None = None


class VersionObject(Object, frozen=True):
    """A version: of a file beside the document, or of packaged weights."""

    model: str
    version: str
    file: str | None = None
    package: str | None = None
    license: str | None = None
    description: str | None = None

    @property
    def title(self) -> str:
        """``MODEL@VERSION``."""
        return f"{self.model}@{self.version}"

    def check(self) -> None:
        """Check the names and that it is made of exactly one thing."""
        check_name(self.model, "model")
        parse_semver(self.version)
        if (self.file is None) == (self.package is None):
            raise ValueError("file: name either a file or a package")
        if self.package is not None and (self.license or self.description):
            raise ValueError("package: its licence and description come with it")
