"""From the control API to gateways: list prices, limits; and what usage shows of both."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_api import Api, open_api
from pilotage.core.frames import Ended, Flag, Outcome
from pilotage.core.snapshot import LimitEntry
from pilotage.core.usage import Usage
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.gateway.snapshots import SnapshotReader, SnapshotView
from pilotage.kit.crypto import open_signer
from pilotage.kit.db import SYSTEM


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "data") as opened:
        yield opened


def read(api: Api) -> SnapshotView:
    """Return the Snapshot as a gateway reads it."""
    public_key = open_signer(api.folder.keys / "snapshot.key").public
    return SnapshotReader(api.folder.snapshots, public_key).load(None)


async def serve(api: Api, endpoint: str, upstream: str, model: str) -> None:
    """Make an endpoint that an upstream's model answers."""
    await api.make("/endpoints", {"name": endpoint})
    body = {"upstream": upstream, "model": model}
    await api.make(f"/endpoints/{endpoint}/deployments", body)


async def test_an_upstreams_model_is_served_at_its_list_price_until_another_is_set(
    api: Api,
) -> None:
    google = "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4"
    await api.make("/upstreams", {"name": "gcp", "provider": "vertex", "base_url": google})
    await serve(api, "chat", "gcp", "google/gemini-2.5-pro")
    await serve(api, "own", "gcp", "gemma-3-27b-it")
    project = await api.show("/projects/default")

    aliases = {view.entry.name: view.entry for view in read(api).list_aliases(project["id"])}
    listed = aliases["chat"].arms[0].rates
    unpublished = (await api.show("/snapshot"))["unpublished"]
    await api.make(
        "/prices", {"subject": "vertex/google/gemini-2.5-pro", "input": "1", "output": "2"}
    )
    await api.make("/prices", {"subject": "gemma-3-27b-it", "input": "0.1", "output": "0.2"})
    after = {view.entry.name: view.entry for view in read(api).list_aliases(project["id"])}

    assert listed.price_id.startswith("genai-prices-")
    assert listed.price_id.endswith(":google/gemini-2.5-pro")
    assert [tier.over for tier in listed.tiers] == [200_000]
    assert "own" not in aliases
    assert [item["reason"] for item in unpublished] == ["no price for gemma-3-27b-it"]
    assert (after["chat"].arms[0].rates.input, after["own"].arms[0].rates.output) == (
        10**9,
        200_000_000,
    )
    assert after["chat"].arms[0].rates.tiers == []


async def test_gateways_learn_of_a_limit_of_its_change_and_of_its_end(api: Api) -> None:
    tenant = await api.make("/tenants", {"name": "acme"})
    body = {"measure": "tokens", "amount": "100k", "per": "day", "tenant": "acme", "user": "*"}
    made = await api.make("/limits", body | {"name": "per-user"})
    first = read(api).limits
    await api.http.put(
        "/limits/per-user", json=body | {"amount": "200k"}, headers={"if-match": '"1"'}
    )
    second = read(api).limits
    await api.http.delete("/limits/per-user")

    entry = LimitEntry(
        id=made["id"],
        project_id=made["project_id"],
        measure="tokens",
        amount=100_000,
        per="day",
        tenant_id=tenant["id"],
        user="*",
    )
    assert list(first) == [entry]
    assert [(limit.id, limit.amount) for limit in second] == [(made["id"], 200_000)]
    assert list(read(api).limits) == []


async def test_usage_knows_users_and_features_and_keeps_copies_apart(api: Api) -> None:
    tenant = await api.show("/tenants/default")

    def end(call_id: str, user: str, feature: str, *flags: Flag) -> Ended:
        return Ended(
            call_id=call_id,
            at_us=1_700_000_000_000_000,
            project_id=tenant["project_id"],
            tenant_id=tenant["id"],
            key_id="key_a",
            alias="chat",
            outcome=Outcome.OK,
            status=200,
            usage=Usage(input=10),
            cost_nano=1_000_000_000,
            is_estimated=False,
            duration_us=1,
            ttft_us=1,
            chunks=1,
            attempts=1,
            user=user,
            feature=feature,
            flags=[flag.value for flag in flags],
        )

    ends = [
        end("c1", "alice", "search"),
        end("c2", "alice", "chat", Flag.RETRIED),
        end("c3", "bob", "chat"),
        end("c4", "bob", "chat", Flag.SHADOW),
    ]
    charges = [make_charge(ended, "gateway-0") for ended in ends]
    async with api.db.write(SYSTEM) as tx:
        place = SpoolPlace(gateway="gateway-0", epoch="e", seq=0)
        await FinopsService(api.clock).record(tx, place, len(charges), charges)

    async def sum_by(group: str, **query: str) -> dict[str, str]:
        shown = await api.show("/usage", by=group, **query)
        return {item["groups"][group]: item["cost_usd"] for item in shown["items"]}

    assert await sum_by("user") == {"": "1.00", "alice": "2.00", "bob": "1.00"}
    assert await sum_by("feature", tenant="default") == {"chat": "2.00", "search": "1.00"}
    assert await sum_by("tenant") == {"shadow": "1.00", tenant["id"]: "3.00"}
    assert await sum_by("key") == {"": "1.00", "key_a": "3.00"}
    traffic = (await api.show("/traffic", after=0))["items"]
    assert [item["flags"] for item in traffic] == [[], ["retried"], [], ["shadow"]]
    assert [item["user"] for item in traffic] == ["alice", "alice", "bob", ""]
