"""Models and their versions, by the names of the design documents."""

from pilotage import DeploymentStage, ModelMetadata, ModelRegistry, ModelSource

__all__ = ["DeploymentStage", "ModelMetadata", "ModelRegistry", "ModelSource"]
