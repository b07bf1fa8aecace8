"""Models, their versions and what endpoints do, by the names of the design documents."""

from pilotage import (
    AlertRule,
    AlertSeverity,
    CostMetrics,
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
    "DeploymentStage",
    "MetricType",
    "ModelMetadata",
    "ModelMetrics",
    "ModelRegistry",
    "ModelSource",
    "QualityMetrics",
    "VertexAIMonitoring",
]
