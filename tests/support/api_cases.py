"""Every route of the control API and how it is asked: the tables of its conventions' suite."""

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from control_api import (
    COST,
    Api,
    Json,
    close_month,
    plan_split,
    put_alert,
    put_dataset_version,
    put_decision,
    put_look,
    put_measures,
    put_metrics,
    put_operation,
    put_opinion,
    put_replay,
    put_rollout,
    seal_name,
)
from notice_cases import NOTICE_LISTS, list_notice_asks
from pilotage.core.errors import CATALOGUE
from pilotage.kit.api import Body, Page, Route
from pilotage.kit.db import SYSTEM
from pilotage.kit.operations import OperationState
from pilotage.kit.outbox import get_last_seq

FREEZE = {"reason": "asked", "starts_at": "2099-02-01", "ends_at": "2099-02-02"}
ISSUER = {"url": "https://asked.example.org", "audience": "pilotage"}
JSON_TYPE = {"content-type": "application/json"}


class World(NamedTuple):
    """The API and the parameters that name one object of every kind in the default project."""

    api: Api
    names: dict[str, str]
    gguf: Path

    def fill(self, route: Route, **other: str) -> str:
        """Return the path of a route with its parameters filled in."""
        values = self.names | other
        return re.sub(
            r"\{(\w+)(?::path)?\}", lambda found: quote(values[found[1]], safe="/"), route.path
        )

    async def send(
        self,
        route: Route,
        *,
        project: str = "default",
        **more: Any,  # noqa: ANN401
    ) -> httpx.Response:
        """Send a request that the route's handler would see, were it admitted."""
        path = more.pop("path", None) or self.fill(route)
        headers = {"if-match": "*"} | more.pop("headers", {})
        params = {"project": project} | GET_QUERIES.get(route.path, {}) | more.pop("params", {})
        return await self.api.http.request(
            route.method, path, headers=headers, params=params, **more
        )

    async def last_seq(self) -> int:
        """Return the newest revision."""
        async with self.api.db.read(SYSTEM) as tx:
            return await get_last_seq(tx)


class Ask(NamedTuple):
    """A request that works: its body, and another body that asks for something else."""

    body: Json | bytes | None
    other: Json | bytes | None = None

    @property
    def sent(self) -> dict[str, Any]:
        """How httpx is told to send it."""
        return sent(self.body)


def sent(body: Json | bytes | None) -> dict[str, Any]:
    """Return how httpx is told to send a body; JSON with everything escaped."""
    if isinstance(body, dict):
        return {"content": json.dumps(body).encode(), "headers": JSON_TYPE}
    return {} if body is None else {"content": body}


def make_asks(world: World) -> dict[tuple[str, str], Ask]:
    """Return a working request for every route that changes something by its body or its key."""
    return {
        **_ask_registry(world),
        **_ask_identity(world),
        **_ask_governance(world),
        **_ask_traffic(world),
        **{route: Ask(*bodies) for route, bodies in list_notice_asks(world.api).items()},
        **_ask_alerts(world),
        **_ask_drift(world),
    }


def _ask_registry(world: World) -> dict[tuple[str, str], Ask]:
    """Ask for models, artifacts, datasets and prompts."""
    gguf, sha256 = world.gguf.read_bytes(), world.names["sha256"]
    version = {"version": "2.0.0", "artifact_sha256": sha256}
    return {
        ("POST", "/prompts"): Ask({"name": "asked", "description": "a"}, {"name": "asked"}),
        ("PUT", "/prompts/{prompt}"): Ask({"description": "asked"}, {"description": "else"}),
        ("POST", "/prompts/{prompt}/versions"): Ask(
            {"version": "2.0.0", "text": "Hi {{ name }}", "variables": [{"name": "name"}]},
            {"version": "2.0.0", "messages": [{"role": "user", "content": "Hi"}]},
        ),
        ("POST", "/prompts/{prompt}/versions/{version}:render"): Ask(
            {"variables": {"name": "Ada"}}, {"variables": {"name": "Eve"}}
        ),
        ("PUT", "/prompts/{prompt}/labels/{label}"): Ask(
            {"version": "1.0.0"}, {"version": "1.1.0"}
        ),
        ("POST", "/artifacts"): Ask(gguf, gguf + b"\x00"),
        ("POST", "/artifacts:tree"): Ask({"files": {"a.gguf": sha256}}, {"files": {"b": sha256}}),
        ("POST", "/artifacts:import"): Ask({"uri": "gs://asked/a.gguf"}, {"uri": "gs://asked/b"}),
        ("POST", "/blobs"): Ask(gguf, gguf + b"\x00"),
        ("POST", "/blobs:missing"): Ask({"sha256": [sha256]}, {"sha256": []}),
        ("POST", "/datasets"): Ask({"name": "asked"}, {"name": "else"}),
        ("PUT", "/datasets/{dataset}"): Ask({"owner": "asked"}, {"owner": "else"}),
        ("POST", "/datasets/{dataset}/versions"): Ask(
            {"version": "2.0.0", "format": "jsonl", "files": {"train": {"a.jsonl": sha256}}},
            {"version": "2.0.0", "format": "csv", "files": {"train": {"a.csv": sha256}}},
        ),
        ("PUT", "/datasets/{dataset}/versions/{dataset_version}"): Ask(
            {"keep_until": "2030-01-01", "hold_reason": "asked"}, {"hold_reason": "else"}
        ),
        ("PUT", "/datasets/{dataset}/releases/{dataset_release}"): Ask(
            {"version": "1.1.0"}, {"version": "1.0.0"}
        ),
        ("POST", "/blobs:collect"): Ask({"dry_run": True}, {"dry_run": False}),
        ("POST", "/models"): Ask({"name": "asked", "description": "a"}, {"name": "asked"}),
        ("POST", "/models:pull"): Ask({"name": "tiny"}, {"name": "nothing"}),
        ("POST", "/models/{model}/versions"): Ask(version, version | {"license": "MIT"}),
        ("PUT", "/models/{model}/versions/{version}"): Ask(
            {"description": "asked", "tags": ["eu"]}, {"custom_metadata": {"team": "fraud"}}
        ),
        ("POST", "/models/{model}/versions/{version}:deprecate"): Ask(
            {"reason": "asked"}, {"reason": "else", "replacement": "tiny@3.0.0"}
        ),
        ("POST", "/models/{model}/versions/{version}/evidence"): Ask(
            {"items": [{"kind": "scan.security", "passed": True}]},
            {"items": [{"kind": "metric.cost", "subject": "cost", "samples": [1, "2.5"]}]},
        ),
        ("POST", "/models/{model}/versions/{version}:promote"): Ask(
            {"stage": "staging", "reason": "asked"}, {"stage": "archived"}
        ),
        ("PUT", "/models/{model}/versions/{version}/card"): Ask(
            {"intended_use": "asked"}, {"limits": "else"}
        ),
        ("PUT", "/models/{model}"): Ask({"description": "asked"}, {"description": "else"}),
    }


def _ask_identity(_: World) -> dict[tuple[str, str], Ask]:
    """Ask for who may do what, and the installation itself."""
    return {
        ("POST", "/projects"): Ask({"name": "asked"}, {"name": "else"}),
        ("POST", "/tenants"): Ask({"name": "asked"}, {"name": "else"}),
        ("POST", "/keys"): Ask({"tenant": "acme", "expires_in": "1d"}, {"tenant": "default"}),
        ("POST", "/keys/{key}:rotate"): Ask({"overlap": "1h"}, {"overlap": "2h"}),
        ("POST", "/keys/{key}:revoke"): Ask(None),
        ("POST", "/principals"): Ask({"name": "asked", "email": "a@example.org"}, {"name": "else"}),
        ("PUT", "/principals/{principal}"): Ask({"display_name": "Ada"}, {"display_name": "Eve"}),
        ("POST", "/principals/{principal}/credentials"): Ask(
            {"expires_in": "1d"}, {"expires_in": "2d"}
        ),
        ("POST", "/issuers"): Ask(ISSUER | {"name": "asked"}, ISSUER | {"name": "else"}),
        ("PUT", "/issuers/{issuer}"): Ask(
            ISSUER | {"url": "https://id.example.org"}, ISSUER | {"url": "https://else.example.org"}
        ),
        ("POST", "/role-bindings"): Ask(
            {"principal": "ada", "role": "auditor", "project": "default"},
            {"principal": "ada", "role": "ml_ops"},
        ),
        ("POST", "/role-bindings/{binding}:end"): Ask(None),
        ("POST", "/credentials/{credential}:rotate"): Ask({"overlap": "1h"}, {"overlap": "2h"}),
        ("POST", "/credentials/{credential}:revoke"): Ask(None),
        ("POST", "/principals/{principal}:revoke-access"): Ask(None),
        ("POST", "/principals/{principal}:disable"): Ask(None),
        ("POST", "/principals/{principal}:enable"): Ask(None),
        ("POST", "/me/credentials/{own}:rotate"): Ask({"overlap": "1h"}, {"overlap": "2h"}),
        ("PUT", "/tenants/{tenant}"): Ask(
            {"time_zone": "Europe/Berlin", "regions": ["eu"], "log_percent": "12.5"},
            {"features": ["search"], "data_class": "restricted", "shows": False},
        ),
        ("POST", "/backups"): Ask({"exclude_models": True}, {"exclude_models": False}),
        ("POST", "/root-keys"): Ask(None),
        ("POST", "/tenants/{tenant}/data-keys"): Ask(None),
        ("POST", "/tenants/{tenant}:erase"): Ask({"dry_run": True}, {"dry_run": False}),
        ("POST", "/gateways"): Ask({"name": "asked-gateway"}, {"name": "else"}),
        ("POST", "/gateways/{gateway}:revoke"): Ask(None),
        ("POST", "/operations/{operation}:cancel"): Ask(None),
    }


def _ask_governance(world: World) -> dict[tuple[str, str], Ask]:
    """Ask for approvals, the calendar, gates and the audit log."""
    approval = {
        "action": "registry.version.promote:production",
        "subject": "tiny@1.0.0",
        "reason": "asked",
    }
    release = plan_split(world.api)
    return {
        ("PUT", "/gate-policies/{stage}"): Ask(
            {"checks": [{"name": "accuracy", "min": "0.9", "min_n": 100}], "approvals": 1},
            {"checks": [{"name": "licence", "allowed": ["MIT"]}], "approvals": 2},
        ),
        ("PUT", "/release-policy"): Ask({"serve_from_stage": "staging"}, {"approvals": 1}),
        ("POST", "/approvals"): Ask(approval, approval | {"needed": 2}),
        ("POST", "/approvals/{approval}/votes"): Ask(
            {"verdict": "withdraw", "reason": "asked"}, {"verdict": "withdraw", "reason": "else"}
        ),
        ("POST", "/calendar/freezes"): Ask(
            FREEZE | {"name": "asked"}, FREEZE | {"name": "asked", "names": ["chat"]}
        ),
        ("POST", "/calendar/freezes/{freeze}/overrides"): Ask(
            {"subject": "chat", "reason": "asked"}, {"subject": "chat", "reason": "else"}
        ),
        ("POST", "/calendar/releases"): Ask(release, release | {"reason": "else"}),
        ("POST", "/calendar/releases/{release}:cancel"): Ask(None),
        ("POST", "/decisions/{decision}/notes"): Ask({"text": "asked"}, {"text": "else"}),
        ("POST", "/audit:verify"): Ask(None),
        ("POST", "/audit:compare"): Ask({"checkpoint": "asked"}, {"checkpoint": "else"}),
        ("POST", "/audit:checkpoint"): Ask(None),
        ("POST", "/audit/holds/{hold}:release"): Ask(None),
        ("POST", "/audit:prune"): Ask(None),
        ("POST", "/audit/holds"): Ask(
            {"name": "case-1", "reason": "a letter"}, {"name": "case-2", "reason": "a letter"}
        ),
    }


def _ask_traffic(_: World) -> dict[tuple[str, str], Ask]:
    """Ask for endpoints, upstreams, prices and limits."""
    price = {"subject": "asked", "input": "1", "output": "2", "valid_from": "2030-01-01T00:00:00Z"}
    limit = {"measure": "usd", "amount": "10", "per": "month", "tenant": "acme"}
    upstream = {"provider": "anthropic", "base_url": "https://api.anthropic.com/v1"}
    moved = {"provider": "openai", "base_url": "https://eu.api.openai.com/v1"}
    routing = {
        "policy": "cheapest",
        "rules": [{"deployments": ["1.0.0"], "tenants": ["acme"], "max_input": 9}],
        "fallbacks": ["tiny@1.0.0"],
        "regions": ["eu"],
    }
    rollout = {"endpoint": "rolled-next", "candidate": "tiny@1.0.0", "reason": "asked"}
    replay = {"endpoint": "rolled", "candidate": "openai/new", "baseline": "openai/old"}
    return {
        ("POST", "/endpoints"): Ask(
            {"name": "asked/a:b", "max_output_tokens": 9}, {"name": "asked/a:b"}
        ),
        ("POST", "/endpoints/{endpoint:path}/deployments"): Ask(
            {"model": "tiny@3.0.0"}, {"model": "tiny@1.0.0"}
        ),
        ("PUT", "/endpoints/{endpoint:path}/deployments/{deployment:path}/scaling"): Ask(
            {"min_replicas": 0, "idle_after_s": 60}, {"max_replicas": 2}
        ),
        ("POST", "/endpoints/{endpoint:path}/deployments/{deployment:path}/warm"): Ask(
            {"keep_s": 60}, {"keep_s": 61}
        ),
        ("POST", "/upstreams"): Ask(
            upstream | {"name": "asked"}, upstream | {"name": "asked", "location": "eu"}
        ),
        ("PUT", "/upstreams/{upstream}"): Ask(moved, moved | {"secret": "env:KEY"}),
        ("PUT", "/endpoints/{endpoint:path}/routing"): Ask(routing, {"retries": 3}),
        ("POST", "/queries"): Ask({"sql": "FROM calls"}, {"sql": "DESCRIBE calls"}),
        ("POST", "/prices"): Ask(price, price | {"input": "2"}),
        ("POST", "/cost-entries"): Ask(COST | {"source": "asked"}, COST | {"source": "else"}),
        ("POST", "/cost-entries/{entry}:reverse"): Ask(None),
        ("POST", "/charges/{call_id}:reverse"): Ask(None),
        ("POST", "/resource-prices"): Ask(
            {"kind": "compute", "price": "0.71"}, {"kind": "storage", "price": "0.02"}
        ),
        ("POST", "/budgets"): Ask(
            {"name": "asked", "amount": "5"}, {"name": "asked", "amount": "5", "per": "day"}
        ),
        ("PUT", "/budgets/{budget_name}"): Ask(
            {"amount": "600"}, {"amount": "600", "thresholds": [80]}
        ),
        ("POST", "/chargeback/{month}:reconcile"): Ask(
            b"date,model,cost\n2026-03-01,a,1\n", b"date,model,cost\n2026-03-01,b,1\n"
        ),
        ("POST", "/limits"): Ask(
            limit | {"name": "asked"}, limit | {"name": "asked", "amount": "11"}
        ),
        ("PUT", "/limits/{limit_name}"): Ask(limit, limit | {"amount": "11"}),
        ("PUT", "/endpoints/{endpoint:path}/split"): Ask(
            {"split": {"tiny@1.0.0": "100"}}, {"split": {"tiny@1.0.0": 100}}
        ),
        ("POST", "/rollouts:plan"): Ask(rollout, rollout | {"strategy": "direct"}),
        ("POST", "/rollouts"): Ask(rollout, rollout | {"strategy": "direct"}),
        **{
            ("POST", f"/rollouts/{{rollout}}:{verb}"): Ask({"reason": "asked"}, {"reason": "else"})
            for verb in ("promote", "hold", "resume", "rollback")
        },
        ("POST", "/replays"): Ask(replay, replay | {"seed": 7}),
        ("PUT", "/endpoints/{endpoint:path}"): Ask(
            {"description": "asked", "max_output_tokens": 5}, {"description": "else"}
        ),
    }


def _ask_drift(_: World) -> dict[tuple[str, str], Ask]:
    """Ask for references."""
    of = {"endpoint": "chat", "model": "tiny@1.0.0"}
    return {("POST", "/drift-references"): Ask(of, of | {"until": "2099-01-01"})}


def _ask_alerts(_: World) -> dict[tuple[str, str], Ask]:
    """Ask for alert rules and objectives."""
    rule = {"condition": "error_rate > 1% for 2m", "severity": "critical"}
    fields = {"metric_name": "latency_p95", "threshold": 500, "comparison": "gt"}
    slo = {"objective": "99.5", "indicator": "latency", "threshold": "2s", "endpoint": "chat"}
    return {
        ("POST", "/alert-rules"): Ask(rule | {"name": "asked"}, fields | {"name": "asked"}),
        ("PUT", "/alert-rules/{alert_rule}"): Ask(rule, fields),
        ("POST", "/alert-rules:check"): Ask(fields, {"condition": "cost > 1 USD"}),
        ("POST", "/slos"): Ask(slo | {"name": "asked"}, {"name": "asked", "objective": "99"}),
        ("PUT", "/slos/{slo}"): Ask(slo, {"objective": "99"}),
    }


MakeItem = Callable[[World, int], Awaitable[object]]


def posts(path: str, **body: str) -> MakeItem:
    """Return how one more item of a list is made: ``*`` is its number."""

    async def make(world: World, number: int) -> object:
        filled = {name: text.replace("*", str(number)) for name, text in body.items()}
        return await world.api.make(path, filled)

    return make


def _made_at(make: Callable[[Api, int], Awaitable[object]]) -> MakeItem:
    """Return how one more item of a list is made of what needs the API alone."""
    return lambda world, number: make(world.api, number)


async def make_version(world: World, number: int) -> object:
    """Make one more version of the furnished model."""
    body = {"version": f"0.{number}.0", "artifact_sha256": world.names["sha256"]}
    return await world.api.make("/models/tiny/versions", body)


async def make_prompt_version(world: World, number: int) -> object:
    """Make one more version of the furnished prompt."""
    body = {"version": f"0.{number}.0", "text": "Hello"}
    return await world.api.make("/prompts/greeting/versions", body)


async def make_label(world: World, number: int) -> object:
    """Make one more label of the furnished prompt."""
    return await world.api.http.put(
        f"/prompts/greeting/labels/page-{number}",
        json={"version": "1.0.0"},
        headers={"if-match": "*"},
    )


async def make_patch(world: World, number: int) -> object:
    """Make one more version, of other numbers than those of :func:`make_version`."""
    body = {"version": f"0.99.{number}", "artifact_sha256": world.names["sha256"]}
    return await world.api.make("/models/tiny/versions", body)


async def make_evidence(world: World, number: int) -> object:
    """Add one more piece of evidence to the furnished version."""
    items = [{"kind": "eval.accuracy", "subject": f"page-{number}", "value": "0.9"}]
    return await world.api.make("/models/tiny/versions/1.0.0/evidence", {"items": items})


async def make_release(world: World, _: int) -> object:
    """Plan one more release."""
    return await world.api.make("/calendar/releases", plan_split(world.api))


async def make_decision(world: World, _: int) -> object:
    """Record one more decision."""
    return await put_decision(world.api)


async def make_dataset_version(world: World, number: int) -> object:
    """Make one more version of the furnished dataset."""
    return await put_dataset_version(world.api, f"0.{number}.0", [f"page {number}"])


async def make_dataset_release(world: World, number: int) -> object:
    """Make one more release of the furnished dataset."""
    path = f"/datasets/questions/releases/page-{number}"
    return await world.api.http.put(path, json={"version": "1.0.0"}, headers={"if-match": "*"})


async def make_reference(world: World, number: int) -> object:
    """Freeze the calls of one more version."""
    await put_measures(world.api, f"page-{number}")
    of = {"endpoint": "chat", "model": f"page-{number}"}
    return await world.api.make("/drift-references", of)


async def make_rollout(world: World, number: int) -> object:
    """Begin one more rollout; nobody else has to agree to it."""
    await world.api.http.put("/release-policy", json={}, headers={"if-match": "*"})
    return await put_rollout(world.api, f"page-{number}")


async def make_replay(world: World, number: int) -> None:
    """Write one more replay."""
    await put_replay(world.api, number)


async def make_look(world: World, _: int) -> None:
    """Keep one more look at the furnished rollout."""
    await put_look(world.api, world.names["rollout"])


async def make_opinion(world: World, number: int) -> None:
    """Give feedback on one more call."""
    await put_opinion(world.api, 100 + number)


async def make_alert(world: World, number: int) -> object:
    """Make one more alert that fires."""
    return await put_alert(world.api, f"page-{number}")


async def make_operation(world: World, _: int) -> object:
    """Write one more operation that has ended."""
    return await put_operation(world.api, OperationState.SUCCEEDED)


async def make_binding(world: World, number: int) -> object:
    """Give one more role to the furnished principal."""
    role = ("auditor", "security", "predictor", "ml_ops", "ml_engineer", "approver")[number % 6]
    return await world.api.make("/role-bindings", {"principal": "ada", "role": role})


async def make_user(world: World, number: int) -> None:
    """Name one more end user, of a tenant that has none yet."""
    await seal_name(world.api, f"ten_page_{number}", f"user {number}")


async def make_metrics(world: World, number: int) -> None:
    """Count a call of one more endpoint."""
    await put_metrics(world.api, f"page-{number}")


async def make_closed_month(world: World, number: int) -> None:
    """Close one more month."""
    await close_month(world.api, f"{1970 + number}-01")


async def make_nothing(_: World, __: int) -> object:
    """Make nothing: the list is filled otherwise."""
    return None


LISTS: dict[str, MakeItem] = {
    "/projects": posts("/projects", name="page-*"),
    "/prompts": posts("/prompts", name="page-*"),
    "/prompts/{prompt}/versions": make_prompt_version,
    "/prompts/{prompt}/labels": make_label,
    "/tenants": posts("/tenants", name="page-*"),
    "/keys": posts("/keys", tenant="acme", name="page-*"),
    "/principals": posts("/principals", name="page-*"),
    "/role-bindings": make_binding,
    "/issuers": posts(
        "/issuers", name="page-*", url="https://page-*.example.org", audience="pilotage"
    ),
    "/credentials": posts("/principals/ada/credentials", expires_in="1*d"),
    "/artifacts/{tree}/files": make_nothing,  # those of the furnished tree
    "/datasets": posts("/datasets", name="page-*"),
    "/datasets/{dataset}/versions": make_dataset_version,
    "/datasets/{dataset}/versions/{dataset_version}/files": make_nothing,  # furnished
    "/datasets/{dataset}/releases": make_dataset_release,
    "/models": posts("/models", name="page-*"),
    "/models/{model}/versions": make_version,
    "/versions": make_patch,
    "/models/{model}/versions/{version}/evidence": make_evidence,
    "/packages": make_nothing,
    "/endpoints": posts("/endpoints", name="Page-*"),
    "/rollouts": make_rollout,
    "/rollouts/{rollout}/looks": make_look,
    "/replays": make_replay,
    "/upstreams": posts("/upstreams", name="page-*", provider="openai", base_url="http://a"),
    "/prices": posts("/prices", subject="page-*", input="1", output="1"),
    "/limits": posts("/limits", name="page-*", measure="requests", amount="60", per="minute"),
    "/costs": make_nothing,  # the calls of the ledger, furnished
    "/chargeback": make_closed_month,
    "/cost-entries": posts("/cost-entries", source="page-*", **COST),
    "/resource-prices": posts("/resource-prices", kind="compute", subject="page-*", price="1"),
    "/budgets": posts("/budgets", name="page-*", amount="5"),
    "/gateways": posts("/gateways", name="gateway-*"),
    "/users": make_user,
    "/data-keys": make_user,
    "/metrics": make_metrics,
    "/usage": make_nothing,  # the calls of the ledger, furnished
    "/traffic": make_nothing,
    "/approvals": posts(
        "/approvals",
        action="registry.version.promote:staging",
        subject="tiny@1.0.0",
        reason="page-*",
    ),
    "/calendar/freezes": posts("/calendar/freezes", name="page-*", **FREEZE),
    "/calendar/releases": make_release,
    "/decisions": make_decision,
    "/deployment-log": make_decision,
    "/intervention-log": make_decision,
    "/audit/entries": make_nothing,  # whatever else happened
    "/audit/holds": posts("/audit/holds", name="page-*", reason="a letter"),
    "/operations": make_operation,
    "/alert-rules": posts("/alert-rules", name="page-*", condition="error_rate > 1%"),
    "/alerts": make_alert,
    "/drift": make_reference,
    "/drift-references": make_reference,
    "/feedback": make_opinion,
    "/slos": posts("/slos", name="page-*", objective="99.9"),
    **{path: _made_at(make) for path, make in NOTICE_LISTS.items()},
}
GET_QUERIES: dict[str, dict[str, str]] = {  # what has no answer without
    "/models/{model}:compare": {"a": "1.0.0", "b": "1.0.0"},
    "/lineage": {"of": "deployment:dep_1"},
    "/costs:release": {"release": "dep_furnished"},
    "/chargeback/{month}:reconcile": {"provider": "openai"},
    "/models/{model}/versions/{version}:assess": {"stage": "production"},
}
OF_EVERY_PROJECT = {  # there before anybody makes one
    "/gate-policies/{stage}",
    "/chargeback/{month}:reconcile",
}
LIST_QUERIES: dict[str, dict[str, str]] = {
    "/costs": {"by": "day"},
    "/usage": {"by": "day"},
    "/traffic": {"after": "0"},
}


def problem_of(reply: httpx.Response) -> Json:
    """Return the problem that a reply must be."""
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    problem: Json = reply.json()
    assert problem["status"] == reply.status_code == CATALOGUE[problem["code"]].status
    assert problem["title"] == CATALOGUE[problem["code"]].title
    assert problem["type"] == f"urn:pilotage:error:{problem['code']}"
    assert problem["detail"]
    return problem


def refusal(reply: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of a refusal."""
    return reply.status_code, str(problem_of(reply)["code"])


def body_of(route: Route) -> type[Body] | None:
    """Return the model of a route's JSON body."""
    for parameter in inspect.signature(route.handler, eval_str=True).parameters.values():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Body):
            return parameter.annotation
    return None


def parameters_of(route: Route) -> list[str]:
    """Return the names of a route's path parameters."""
    return re.findall(r"\{(\w+)", route.path)


def queries_of(route: Route) -> list[str]:
    """Return the names of a route's query parameters."""
    own = list(inspect.signature(route.handler, eval_str=True).parameters.values())[1:]
    in_query = [item.name for item in own if item.name not in parameters_of(route)]
    return [name for name in in_query if name != "body"]


def lists(world: World) -> Iterator[Route]:
    """Yield the routes that list something."""
    for route in world.api.routes:
        shown = inspect.signature(route.handler, eval_str=True).return_annotation
        if isinstance(shown, type) and issubclass(shown, Page):
            yield route
