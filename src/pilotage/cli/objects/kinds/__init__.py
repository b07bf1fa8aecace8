"""The kinds of objects that files may hold: their fields, and what is checked of each alone.

The reference is docs/reference/objects.md.
"""

from pilotage.cli.objects.kinds.alerts import AlertRuleObject, SloObject
from pilotage.cli.objects.kinds.base import Object
from pilotage.cli.objects.kinds.costs import BudgetObject, ResourcePriceObject
from pilotage.cli.objects.kinds.identity import (
    GroupRolePart,
    IssuerObject,
    KeyObject,
    PrincipalObject,
    ProjectObject,
    RoleBindingObject,
    TenantObject,
)
from pilotage.cli.objects.kinds.notices import (
    ChannelObject,
    InhibitionObject,
    NoticeRouteObject,
)
from pilotage.cli.objects.kinds.registry import ModelObject, PromptObject, VersionObject
from pilotage.cli.objects.kinds.release import (
    CheckPart,
    FreezeObject,
    GatePolicyObject,
    ReleasePolicyObject,
)
from pilotage.cli.objects.kinds.rollout import GatePart, RolloutObject, StepPart
from pilotage.cli.objects.kinds.serving import (
    CLASSES,
    EndpointObject,
    LimitObject,
    PriceObject,
    RoutingPart,
    Rule,
    ScalingPart,
    ShadowPart,
    Share,
    UpstreamObject,
)

__all__ = [
    "CLASSES",
    "KINDS",
    "AlertRuleObject",
    "BudgetObject",
    "ChannelObject",
    "CheckPart",
    "EndpointObject",
    "FreezeObject",
    "GatePart",
    "GatePolicyObject",
    "GroupRolePart",
    "InhibitionObject",
    "IssuerObject",
    "KeyObject",
    "LimitObject",
    "ModelObject",
    "NoticeRouteObject",
    "Object",
    "PriceObject",
    "PrincipalObject",
    "ProjectObject",
    "PromptObject",
    "ReleasePolicyObject",
    "ResourcePriceObject",
    "RoleBindingObject",
    "RolloutObject",
    "RoutingPart",
    "Rule",
    "ScalingPart",
    "ShadowPart",
    "Share",
    "SloObject",
    "StepPart",
    "TenantObject",
    "UpstreamObject",
    "VersionObject",
]

KINDS: dict[str, type[Object]] = {  # in the order in which they are applied
    "Project": ProjectObject,
    "Principal": PrincipalObject,
    "RoleBinding": RoleBindingObject,
    "Issuer": IssuerObject,
    "Tenant": TenantObject,
    "GatePolicy": GatePolicyObject,
    "Model": ModelObject,
    "ModelVersion": VersionObject,
    "Prompt": PromptObject,
    "Upstream": UpstreamObject,
    "Price": PriceObject,
    "Endpoint": EndpointObject,
    "Rollout": RolloutObject,
    "Key": KeyObject,
    "Limit": LimitObject,
    "Budget": BudgetObject,
    "ResourcePrice": ResourcePriceObject,
    "ReleasePolicy": ReleasePolicyObject,
    "Freeze": FreezeObject,
    "Channel": ChannelObject,
    "NoticeRoute": NoticeRouteObject,
    "Inhibition": InhibitionObject,
    "AlertRule": AlertRuleObject,
    "Slo": SloObject,
}
