"""Pilotage: one gateway for every model call, one release path for every model change."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AlertRule",
    "AlertSeverity",
    "AutoScalingConfig",
    "CostMetrics",
    "CostTracker",
    "DeploymentStage",
    "EndpointConfig",
    "HybridLLMClient",
    "HybridLLMConfig",
    "MetricType",
    "ModelEndpoint",
    "ModelEndpoints",
    "ModelMetadata",
    "ModelMetrics",
    "ModelRegistry",
    "ModelSource",
    "QualityMetrics",
    "RegisteredModel",
    "TrafficSplit",
    "TrafficSplitStrategy",
    "VertexAIMonitoring",
    "__version__",
]

if TYPE_CHECKING:
    from pilotage.sdk.alert_rule import AlertRule, AlertSeverity, MetricType
    from pilotage.sdk.cost_tracker import CostTracker
    from pilotage.sdk.endpoint_config import (
        AutoScalingConfig,
        EndpointConfig,
        ModelEndpoint,
        TrafficSplit,
        TrafficSplitStrategy,
    )
    from pilotage.sdk.hybrid_llm_client import HybridLLMClient, HybridLLMConfig
    from pilotage.sdk.metrics import CostMetrics, ModelMetrics, QualityMetrics
    from pilotage.sdk.model_endpoints import ModelEndpoints
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
    "AutoScalingConfig": "pilotage.sdk.endpoint_config",
    "CostMetrics": "pilotage.sdk.metrics",
    "CostTracker": "pilotage.sdk.cost_tracker",
    "DeploymentStage": "pilotage.sdk.model_metadata",
    "EndpointConfig": "pilotage.sdk.endpoint_config",
    "HybridLLMClient": "pilotage.sdk.hybrid_llm_client",
    "HybridLLMConfig": "pilotage.sdk.hybrid_llm_client",
    "MetricType": "pilotage.sdk.alert_rule",
    "ModelEndpoint": "pilotage.sdk.endpoint_config",
    "ModelEndpoints": "pilotage.sdk.model_endpoints",
    "ModelMetadata": "pilotage.sdk.model_metadata",
    "ModelMetrics": "pilotage.sdk.metrics",
    "ModelRegistry": "pilotage.sdk.model_registry",
    "ModelSource": "pilotage.sdk.model_metadata",
    "QualityMetrics": "pilotage.sdk.metrics",
    "RegisteredModel": "pilotage.sdk.model_metadata",
    "TrafficSplit": "pilotage.sdk.endpoint_config",
    "TrafficSplitStrategy": "pilotage.sdk.endpoint_config",
    "VertexAIMonitoring": "pilotage.sdk.monitoring",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    """Load what a program asks for; importing the package loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
