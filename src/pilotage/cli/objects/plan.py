"""What applying documents would change: read and checked first, then done step by step."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pilotage.cli.objects.alerts import plan_alert_rule, plan_slo
from pilotage.cli.objects.costs import plan_budget, plan_resource_price
from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.endpoint import plan_endpoint
from pilotage.cli.objects.identity import (
    plan_binding,
    plan_issuer,
    plan_key,
    plan_principal,
    plan_tenant,
)
from pilotage.cli.objects.kinds import (
    AlertRuleObject,
    BudgetObject,
    ChannelObject,
    EndpointObject,
    FreezeObject,
    GatePolicyObject,
    InhibitionObject,
    IssuerObject,
    KeyObject,
    LimitObject,
    ModelObject,
    NoticeRouteObject,
    PriceObject,
    PrincipalObject,
    ProjectObject,
    PromptObject,
    ReleasePolicyObject,
    ResourcePriceObject,
    RoleBindingObject,
    RolloutObject,
    SloObject,
    TenantObject,
    UpstreamObject,
    VersionObject,
)
from pilotage.cli.objects.limit import plan_limit
from pilotage.cli.objects.notices import plan_channel, plan_inhibition, plan_notice_route
from pilotage.cli.objects.registry import check_labels, plan_model, plan_prompt, plan_version
from pilotage.cli.objects.release import plan_freeze, plan_gate_policy, plan_release_policy
from pilotage.cli.objects.rollout import plan_rollout
from pilotage.cli.objects.serving import plan_price, plan_upstream
from pilotage.cli.objects.step import CREATED, UNCHANGED, Step, There
from pilotage.cli.session import collect
from pilotage.sdk.control import ControlClient


async def make_plan(control: ControlClient, documents: Sequence[Document]) -> list[Step]:
    """Return a step for each document, in order; raise ``invalid_request`` if one cannot be done.

    Only reads.
    """
    there = There(
        control=control,
        projects={item["name"] for item in await collect(control, "/projects")},
        packages={item["model"]: item["version"] for item in await collect(control, "/packages")},
        planned={(item.kind, item.project, item.content.title) for item in documents},
    )
    check_labels(documents)
    return [await _plan(there, document) for document in documents]


async def _plan(there: There, document: Document) -> Step:
    content = document.content
    if isinstance(content, ProjectObject):
        return _plan_project(there, document, content)
    makes_project = any(
        (kind, title) == ("Project", document.project) for kind, _, title in there.planned
    )
    if document.project not in there.projects and not makes_project:
        raise document.refuse(
            f"there is no project {document.project!r}",
            "Add a document of kind Project, or: pilotage projects create NAME",
        )
    return await _PLANS[type(content)](there, document, content)


def _plan_project(there: There, document: Document, project: ProjectObject) -> Step:
    if project.name in there.projects:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        await there.control.post("/projects", {"name": project.name})

    return Step(document=document, result=CREATED, act=act)


_PLANS: dict[type, Callable[[There, Document, Any], Awaitable[Step]]] = {
    TenantObject: plan_tenant,
    ModelObject: plan_model,
    VersionObject: plan_version,
    UpstreamObject: plan_upstream,
    PriceObject: plan_price,
    EndpointObject: plan_endpoint,
    RolloutObject: plan_rollout,
    KeyObject: plan_key,
    LimitObject: plan_limit,
    BudgetObject: plan_budget,
    ResourcePriceObject: plan_resource_price,
    PrincipalObject: plan_principal,
    RoleBindingObject: plan_binding,
    IssuerObject: plan_issuer,
    PromptObject: plan_prompt,
    GatePolicyObject: plan_gate_policy,
    ReleasePolicyObject: plan_release_policy,
    FreezeObject: plan_freeze,
    ChannelObject: plan_channel,
    NoticeRouteObject: plan_notice_route,
    InhibitionObject: plan_inhibition,
    AlertRuleObject: plan_alert_rule,
    SloObject: plan_slo,
}
