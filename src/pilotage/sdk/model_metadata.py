"""What the Python API says of a model version: the names of ``infrastructure.vertex_ai``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import Any, Self

from pilotage.core.semver import parse_semver


class DeploymentStage(Enum):
    """How far a version has come; promotions go step by step and skip none."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"
    ARCHIVED = "archived"


class ModelSource(Enum):
    """Where a version comes from; the short names are aliases."""

    SE_DARWIN_EVOLUTION = "se_darwin"
    MANUAL_UPLOAD = "manual"
    PRETRAINED_HF = "huggingface"
    PRETRAINED_VERTEX = "vertex_model_garden"
    CUSTOM_TRAINING = "custom"
    PACKAGE = "package"
    SE_DARWIN = SE_DARWIN_EVOLUTION
    MANUAL = MANUAL_UPLOAD
    HUGGINGFACE = PRETRAINED_HF


@dataclass(kw_only=True)
class ModelMetadata:
    """All that is known of a model version.

    Only ``name`` and ``version`` (a semantic version, else ValueError) must be given.
    ``parent_version`` is the version it was made of: ``1.0.0`` of the same model, or
    ``OTHER@1.0.0``. Times and ``created_by`` are the registry's. Metrics are the newest value of
    each name; where they come from is in the evidence behind them.
    """

    name: str
    version: str
    display_name: str = ""
    description: str = ""
    source: ModelSource = ModelSource.MANUAL_UPLOAD
    artifact_uri: str = ""
    serving_container_uri: str = ""
    deployment_stage: DeploymentStage = DeploymentStage.DEVELOPMENT
    base_model: str | None = None
    performance_metrics: dict[str, float] = field(default_factory=dict)
    cost_metrics: dict[str, float] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str = ""
    parent_version: str | None = None
    vertex_ai_resource_name: str | None = None
    custom_metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_semver(self.version)
        self.source = ModelSource(self.source)
        self.deployment_stage = DeploymentStage(self.deployment_stage)

    @property
    def resource_name(self) -> str:
        """What Vertex AI calls it, where it is there; ``models/NAME@VERSION`` otherwise."""
        return self.vertex_ai_resource_name or f"models/{self.name}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; :meth:`from_dict` reads them back."""
        plain: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Enum):
                plain[item.name] = value.value
            elif isinstance(value, datetime):
                plain[item.name] = value.isoformat()
            else:
                plain[item.name] = value.copy() if isinstance(value, (dict, list)) else value
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Return what :meth:`to_dict` made plain; unknown names are a TypeError."""
        values = dict(plain)
        for name in ("created_at", "updated_at"):
            if isinstance(values.get(name), str):
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A version that is in the registry: its id there, and the hash of the bytes it runs."""

    id: str
    name: str
    version: str
    resource_name: str
    artifact_sha256: str | None
