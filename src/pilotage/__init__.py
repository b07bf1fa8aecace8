"""Pilotage: one gateway for every model call, one release path for every model change."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AlertRule",
    "AlertSeverity",
    "CostMetrics",
    "CostTracker",
    "DeploymentStage",
    "HybridLLMClient",
    "HybridLLMConfig",
    "MetricType",
    "ModelMetadata",
    "ModelMetrics",
    "ModelRegistry",
    "ModelSource",
    "QualityMetrics",
    "RegisteredModel",
    "VertexAIMonitoring",
    "__version__",
]

if TYPE_CHECKING:
    from pilotage.sdk.alert_rule import AlertRule, AlertSeverity, MetricType
    from pilotage.sdk.cost_tracker import CostTracker
    from pilotage.sdk.hybrid_llm_client import HybridLLMClient, HybridLLMConfig
    from pilotage.sdk.metrics import CostMetrics, ModelMetrics, QualityMetrics
    from pilotage.sdk.model_metadata import (
        DeploymentStage,
        ModelMetadata,
        ModelSource,
        RegisteredModel,
    )
    from pilotage.sdk.model_registry import ModelRegistry
    from pilotage.sdk.monitoring import VertexAIMonitoring

_HOMES = {
    "AlertRule": "pilotage.sdk.alert_rule",
    "AlertSeverity": "pilotage.sdk.alert_rule",
    "CostMetrics": "pilotage.sdk.metrics",
    "CostTracker": "pilotage.sdk.cost_tracker",
    "DeploymentStage": "pilotage.sdk.model_metadata",
    "HybridLLMClient": "pilotage.sdk.hybrid_llm_client",
    "HybridLLMConfig": "pilotage.sdk.hybrid_llm_client",
    "MetricType": "pilotage.sdk.alert_rule",
    "ModelMetadata": "pilotage.sdk.model_metadata",
    "ModelMetrics": "pilotage.sdk.metrics",
    "ModelRegistry": "pilotage.sdk.model_registry",
    "ModelSource": "pilotage.sdk.model_metadata",
    "QualityMetrics": "pilotage.sdk.metrics",
    "RegisteredModel": "pilotage.sdk.model_metadata",
    "VertexAIMonitoring": "pilotage.sdk.monitoring",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    """Load what a program asks for; importing the package loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
