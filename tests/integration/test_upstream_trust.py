"""Which data an upstream may see is not for whoever operates it to say alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control_api import Api, open_api
from pilotage.identity.types import Role

GPU = {"provider": "openai", "base_url": "http://gpu/v1", "location": "local"}
Put = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


async def make_put(api: Api, *roles: Role) -> Put:
    """Return what replaces the upstream gpu, or makes another, as somebody with some roles."""
    name = "-".join(["some", *roles]).replace("_", "-")
    credential = await api.make_principal(name, *roles)
    headers = {"authorization": f"Bearer {credential}", "if-match": "*"}

    async def put(new: str = "", **more: Any) -> tuple[int, str]:  # noqa: ANN401 - any field
        if new:
            body = {"name": new, **GPU, **more}
            reply = await api.http.post("/upstreams", json=body, headers=headers)
        else:
            reply = await api.http.put("/upstreams/gpu", json=GPU | more, headers=headers)
        return reply.status_code, reply.json().get("code", reply.json().get("accepts"))

    return put


async def test_an_operator_alone_lets_nobody_see_more_than_internal_data(api: Api) -> None:
    operate = await make_put(api, Role.ML_OPS)
    for data_class in ("confidential", "restricted"):
        assert await operate("gpu", accepts=data_class) == (403, "permission_denied")
    assert await operate("gpu", accepts="public") == (201, "public")
    assert await operate(accepts="internal") == (403, "permission_denied")
    assert await operate(accepts="public", base_url="http://b", proxy="http://p:1") == (
        200,
        "public",
    )
    assert (await api.show("/upstreams/gpu"))["base_url"] == "http://b"
    assert await operate("other") == (201, "internal")


@pytest.mark.parametrize("roles", [(Role.ML_OPS, Role.SECURITY), (Role.ADMIN,)], ids="-".join)
async def test_what_was_agreed_to_holds_for_one_address(api: Api, roles: tuple[Role, ...]) -> None:
    agree, operate = await make_put(api, *roles), await make_put(api, Role.ML_OPS)
    assert await agree("gpu", accepts="restricted") == (201, "restricted")
    ways: dict[str, str] = {
        "base_url": "http://elsewhere/v1",
        "proxy": "http://elsewhere:3128",
        "ca_file": "/elsewhere.pem",
    }
    for field, value in ways.items():
        refused = await operate(accepts="restricted", **{field: value})
        assert refused == (403, "permission_denied"), field
    refused = await operate(accepts="confidential", location="us")
    assert refused == (403, "permission_denied")
    kept = await operate(accepts="restricted", base_url="HTTP://GPU/v1/", max_connections=9)
    assert kept == (200, "restricted")
    assert await operate(accepts="internal", base_url="http://elsewhere/v1") == (200, "internal")
    assert await operate(accepts="restricted") == (403, "permission_denied")
    assert await agree(accepts="restricted", base_url="http://new/v1") == (200, "restricted")


async def test_security_alone_changes_no_upstream(api: Api) -> None:
    guard = await make_put(api, Role.SECURITY)
    assert await guard("gpu", accepts="restricted") == (403, "permission_denied")


async def test_a_public_provider_is_not_in_the_house(api: Api) -> None:
    agree = await make_put(api, Role.ADMIN)
    said = await agree("gpu", base_url="https://api.openai.com/v1", accepts="restricted")
    assert said == (400, "invalid_request")
