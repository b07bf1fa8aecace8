"""A real gateway process before a provider: over TLS, through a proxy, with Google's tokens."""

from pathlib import Path
from typing import Any

from connect_proxy import ConnectProxy
from faulty_upstream import FaultyUpstream
from gateway_harness import GatewayProcess, World, chat_body, make_http
from made_calls import make_arm
from pilotage.core.frames import Ended
from pilotage.core.snapshot import UpstreamEntry
from private_ca import PrivateAuthority
from token_server import TokenServer, write_service_account

HOST = "models.bank"


def entry(world: World, **more: Any) -> UpstreamEntry:  # noqa: ANN401
    values: dict[str, Any] = {
        "id": "ups_1",
        "project_id": world.tenant.project_id,
        "name": "bank",
        "provider": "openai",
    }
    return UpstreamEntry(**values | more)


def publish(world: World, upstream: UpstreamEntry) -> None:
    arm = make_arm("dep_up", upstream_id=upstream.id, upstream_model="provider-model")
    world.publish(arms=[arm], upstreams=[upstream])


async def test_a_provider_is_reached_through_a_proxy_by_its_own_name(tmp_path: Path) -> None:
    authority, world = PrivateAuthority(), World(tmp_path / "data")
    (tmp_path / "key").write_text("MARKER-SECRET")
    async with (
        FaultyUpstream(tls=authority.serve_as(HOST)) as upstream,
        ConnectProxy(hosts={HOST: "127.0.0.1"}) as proxy,
    ):
        publish(
            world,
            entry(
                world,
                base_url=f"https://{HOST}:{upstream.port}/v1",
                secret=f"file:{tmp_path / 'key'}",
                proxy=proxy.url,
                ca_file=authority.write(tmp_path / "ca.pem"),
            ),
        )
        settings = {"egress": {"allow": f"{HOST}, 127.0.0.1:{proxy.port}"}}
        async with GatewayProcess(world, settings) as gateway, make_http(gateway) as http:
            plain = await http.post("/v1/chat/completions", json=chat_body())
            assert (plain.status_code, plain.json()["model"]) == (200, "chat")
            streamed = await http.post("/v1/chat/completions", json=chat_body(stream=True))
            assert streamed.text.endswith("data: [DONE]\n\n")
            refused = await http.post(
                "/v1/chat/completions", json=chat_body({"fault": "status", "status": 401})
            )
            assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_auth")
            assert "MARKER-SECRET" not in refused.text + gateway.log()
        assert {request.authorization for request in upstream.requests} == {"Bearer MARKER-SECRET"}
        assert proxy.asked == [f"{HOST}:{upstream.port}"]
    ends = [frame for frame in world.frames() if isinstance(frame, Ended)]
    assert [end.upstream_id for end in ends] == ["ups_1"] * 3


async def test_without_being_named_a_loopback_provider_is_not_called(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    async with FaultyUpstream() as upstream:
        publish(world, entry(world, base_url=f"{upstream.url}/v1"))
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            denied = await http.post("/v1/chat/completions", json=chat_body())
        assert (denied.status_code, denied.json()["error"]["code"]) == (502, "egress_denied")
        assert "egress.allow" in denied.json()["error"]["message"]
        assert upstream.connections == 0


async def test_a_vertex_provider_is_shown_a_token_of_google(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    with TokenServer() as google:
        key = write_service_account(tmp_path, f"{google.url}/token")
        async with FaultyUpstream() as upstream:
            base = f"{upstream.url}/v1"
            publish(world, entry(world, provider="vertex", base_url=base, secret=f"file:{key}"))
            settings = {"egress": {"allow": "127.0.0.1"}}
            async with GatewayProcess(world, settings) as gateway, make_http(gateway) as http:
                for _ in range(3):
                    reply = await http.post("/v1/chat/completions", json=chat_body())
                    assert reply.status_code == 200
                assert await gateway.stop() == 0  # its thread does not hold it
            assert [r.authorization for r in upstream.requests] == ["Bearer token-1"] * 3
