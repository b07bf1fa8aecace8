"""Pilotage: one gateway for every model call, one release path for every model change."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "DeploymentStage",
    "HybridLLMClient",
    "HybridLLMConfig",
    "ModelMetadata",
    "ModelRegistry",
    "ModelSource",
    "RegisteredModel",
    "__version__",
]

if TYPE_CHECKING:
    from pilotage.sdk.hybrid_llm_client import HybridLLMClient, HybridLLMConfig
    from pilotage.sdk.model_metadata import (
        DeploymentStage,
        ModelMetadata,
        ModelSource,
        RegisteredModel,
    )
    from pilotage.sdk.model_registry import ModelRegistry

_HOMES = {
    "DeploymentStage": "pilotage.sdk.model_metadata",
    "HybridLLMClient": "pilotage.sdk.hybrid_llm_client",
    "HybridLLMConfig": "pilotage.sdk.hybrid_llm_client",
    "ModelMetadata": "pilotage.sdk.model_metadata",
    "ModelRegistry": "pilotage.sdk.model_registry",
    "ModelSource": "pilotage.sdk.model_metadata",
    "RegisteredModel": "pilotage.sdk.model_metadata",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    """Load what a program asks for; importing the package loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
