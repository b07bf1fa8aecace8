"""Models, their versions, what endpoints do and what they cost."""

from pilotage import (
    AlertRule,
    AlertSeverity,
    CostMetrics,
    CostTracker,
    DeploymentStage,
    MetricType,
    ModelMetadata,
    ModelMetrics,
    ModelRegistry,
    ModelSource,
    QualityMetrics,
    VertexAIMonitoring,
)

__all__ = [
    "AlertRule",
    "AlertSeverity",
    "CostMetrics",
    "CostTracker",
    "DeploymentStage",
    "MetricType",
    "ModelMetadata",
    "ModelMetrics",
    "ModelRegistry",
    "ModelSource",
    "QualityMetrics",
    "VertexAIMonitoring",
]
