"""Registry, finops, audit and operations through the control API, on both databases."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotage.audit.holds import HoldService
from pilotage.audit.http import audit_routes
from pilotage.audit.inspection import AuditInspection
from pilotage.audit.notes import open_checkpoint
from pilotage.audit.open_log import open_log
from pilotage.audit.proofs import check_file
from pilotage.audit.retention import Pruner
from pilotage.audit.retention_http import retention_routes
from pilotage.audit.service import AuditService
from pilotage.core.frames import Ended, Outcome
from pilotage.core.usage import Usage
from pilotage.finops.http import finops_routes
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.identity.service import IdentityService
from pilotage.kit.blobs_file import FileBlobs
from pilotage.kit.clock import ManualClock, parse_rfc3339
from pilotage.kit.crypto import Signer
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.operations import Operations, Progress
from pilotage.kit.operations_http import operation_routes
from pilotage.kit.resources import Background
from pilotage.registry.artifacts.files import ArtifactFiles
from pilotage.registry.artifacts.garbage import GarbageCollector
from pilotage.registry.artifacts.http import artifact_routes
from pilotage.registry.backends.packages import PACKAGED_WEIGHTS, PackagedWeights
from pilotage.registry.http import registry_routes
from pilotage.registry.pull import ModelFiles
from pilotage.registry.service import RegistryService
from pilotage.runtime.installation import Installation
from pilotage.server.app import make_app

MAX_BYTES = 4 << 20
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


class Shelf:
    """Where packaged weights come from here: a file instead of a package index."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.fetched = 0

    async def fetch(self, weights: PackagedWeights, into: Path, progress: Progress) -> Path:
        self.fetched += 1
        progress("download", 1, 2)
        into.mkdir(exist_ok=True)
        target = into / Path(weights.file).name
        target.write_bytes(self.source.read_bytes())
        return target


class Control(NamedTuple):
    """The control API of a data folder and what lies behind it."""

    http: httpx.AsyncClient
    db: Database
    operations: Operations
    blobs: Path
    shelf: Shelf
    deployed: set[str]

    async def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - JSON of any kind
        reply = await self.http.get(path, params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def pull(self, name: str) -> dict[str, Any]:
        reply = await self.http.post("/models:pull", json={"name": name})
        assert reply.status_code == 202, reply.text
        await self.operations.wait(SYSTEM, reply.json()["id"])
        ended: dict[str, Any] = await self.get(f"/operations/{reply.json()['id']}")
        return ended


@pytest.fixture
async def control(
    database: Database, clock: ManualClock, tmp_path: Path, tiny_gguf: Path
) -> AsyncIterator[Control]:
    identity, registry = IdentityService(clock), RegistryService(clock)
    async with database.write(SYSTEM) as tx:
        made = await identity.bootstrap(tx)
    blobs, deployed = tmp_path / "blobs", set[str]()
    blobs.mkdir()
    shelf = Shelf(tiny_gguf)

    async def is_deployed(tx: Tx, version_id: str) -> bool:
        return version_id in deployed

    async def wait_visible(seq: int) -> list[str]:
        return []

    async def end_waits() -> None:
        """Nobody waits here."""

    async with Background() as background, open_log(tmp_path / "audit", SIGNER) as log:
        audit, holds = AuditService(database, log), HoldService(clock)
        operations = Operations(database, clock, background)
        kept = FileBlobs(blobs)
        artifacts = ArtifactFiles(
            database, registry.artifacts, kept, tmp_path / "gs", max_bytes=MAX_BYTES
        )
        files = ModelFiles(
            database, registry, artifacts, operations, tmp_path / "downloads", fetch=shelf.fetch
        )
        garbage = GarbageCollector(database, registry.artifacts, kept, clock)
        routes = [
            *registry_routes(registry, files, is_deployed),
            *artifact_routes(registry.artifacts, artifacts, operations, garbage),
            *finops_routes(FinopsService(clock), identity),
            *audit_routes(audit, AuditInspection(database, audit, [])),
            *retention_routes(audit, Pruner(database, audit, holds, 7 * 86_400_000_000), holds),
            *operation_routes(operations),
        ]
        app = make_app(
            Installation(
                db=database,
                identity=identity,
                routes=routes,
                raw_routes=[],
                wait_visible=wait_visible,
                end_waits=end_waits,
            )
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://control/api/v1",
            headers={"authorization": f"Bearer {made.admin_credential}"},
        ) as http:
            yield Control(http, database, operations, blobs, shelf, deployed)


def list_blobs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def offer(monkeypatch: pytest.MonkeyPatch, source: Path, sha256: str | None = None) -> str:
    """Put a file among the packaged weights as ``tiny``; return the hash of its bytes."""
    content = source.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    weights = PackagedWeights(
        model="tiny",
        version="1.0.0",
        description="A tiny model.",
        license="MIT",
        package="tiny",
        package_version="1",
        file="tiny/tiny.gguf",
        file_bytes=len(content),
        sha256=sha256 or digest,
    )
    monkeypatch.setitem(PACKAGED_WEIGHTS, "tiny", weights)
    return digest


# registry


async def test_a_model_is_uploaded_versioned_and_shown(control: Control, tiny_gguf: Path) -> None:
    content = tiny_gguf.read_bytes()
    uploaded = await control.http.post("/artifacts", content=content)
    again = await control.http.post("/artifacts", content=content)
    sha256 = uploaded.json()["sha256"]
    await control.http.post("/models", json={"name": "tiny", "description": "small"})
    made = await control.http.post(
        "/models/tiny/versions", json={"version": "1.2.0", "artifact_sha256": sha256}
    )

    assert (uploaded.status_code, made.status_code) == (201, 201)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert again.json() == uploaded.json()
    assert uploaded.json()["info"]["architecture"] == "llama"
    assert (await control.get(f"/artifacts/{sha256}"))["size_bytes"] == len(content)
    assert list_blobs(control.blobs) == [sha256]
    assert (await control.get("/models"))["items"][0]["name"] == "tiny"
    assert (await control.get("/models/tiny"))["description"] == "small"
    shown = await control.get("/models/tiny/versions/1.2.0")
    assert shown == made.json()
    assert (shown["ref"], shown["model"], shown["context_tokens"]) == ("tiny@1.2.0", "tiny", 2048)
    assert (await control.get("/models/tiny/versions"))["items"] == [shown]


@pytest.mark.parametrize("damage", ["no model", "cut off"])
async def test_what_is_no_model_leaves_nothing_behind(
    control: Control, tiny_gguf: Path, damage: str
) -> None:
    whole = tiny_gguf.read_bytes()
    content = whole[: len(whole) // 2] if damage == "cut off" else b"GIF89a" * 100

    reply = await control.http.post("/artifacts", content=content)

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_artifact")
    assert list_blobs(control.blobs) == []
    digest = hashlib.sha256(content).hexdigest()
    assert (await control.http.get(f"/artifacts/{digest}")).status_code == 404


async def test_a_file_that_is_too_large_is_refused(control: Control) -> None:
    reply = await control.http.post("/artifacts", content=bytes(MAX_BYTES + 1))

    assert (reply.status_code, reply.json()["code"]) == (413, "request_too_large")
    assert list_blobs(control.blobs) == []


async def test_a_file_in_use_elsewhere_survives_a_failed_inspection(
    control: Control, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_gguf.read_bytes()
    await control.http.post("/artifacts", content=content)
    monkeypatch.setattr("pilotage.registry.inspection.sys.executable", "/bin/false")

    reply = await control.http.post("/artifacts", content=content)

    assert reply.json()["code"] == "invalid_artifact"
    assert list_blobs(control.blobs) == [hashlib.sha256(content).hexdigest()]


async def test_a_pull_makes_a_version_and_a_second_one_needs_no_network(
    control: Control, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = offer(monkeypatch, tiny_gguf)

    first = await control.pull("tiny")
    second = await control.pull("tiny")

    assert (first["state"], first["error"]) == ("succeeded", None)
    assert first["result"] == second["result"] == {"model": "tiny@1.0.0"}
    assert first["done"] == first["total"] == tiny_gguf.stat().st_size
    assert control.shelf.fetched == 1
    assert list_blobs(control.blobs) == [digest]
    version = await control.get("/models/tiny/versions/1.0.0")
    assert (version["source"], version["license"]) == ("package", "MIT")
    assert len((await control.get("/models/tiny/versions"))["items"]) == 1


async def test_a_deleted_model_is_pulled_again_from_what_is_there(
    control: Control, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tiny_gguf)
    await control.pull("tiny")
    before = await control.get("/models/tiny/versions/1.0.0")
    assert (await control.http.delete("/models/tiny")).status_code == 204

    ended = await control.pull("tiny")

    assert ended["result"] == {"model": "tiny@1.0.0"}
    assert (await control.get("/models/tiny/versions/1.0.0"))["id"] != before["id"]
    assert control.shelf.fetched == 1


async def test_weights_that_are_not_as_published_are_no_version(
    control: Control, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tiny_gguf, sha256="ab" * 32)

    ended = await control.pull("tiny")

    assert (ended["state"], ended["error"]["code"]) == ("failed", "invalid_artifact")
    assert (await control.http.get("/models/tiny")).status_code == 404
    assert list_blobs(control.blobs) == []


async def test_a_pull_of_something_unknown_is_refused_at_once(control: Control) -> None:
    reply = await control.http.post("/models:pull", json={"name": "nothing"})

    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert (await control.get("/operations"))["items"] == []


async def test_what_is_deployed_is_not_deleted(
    control: Control, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tiny_gguf)
    await control.pull("tiny")
    version = await control.get("/models/tiny/versions/1.0.0")
    control.deployed.add(version["id"])

    refused = await control.http.delete("/models/tiny/versions/1.0.0")
    control.deployed.clear()
    deleted = await control.http.delete("/models/tiny/versions/1.0.0")

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert deleted.status_code == 204
    assert (await control.get("/models/tiny/versions"))["items"] == []


# finops


async def test_prices_are_set_and_listed(control: Control) -> None:
    made = await control.http.post(
        "/prices",
        json={
            "subject": "tiny@1.0.0",
            "input": "0.15",
            "output": "0.6",
            "valid_from": "2026-01-01T00:00:00Z",
        },
    )
    vague = {"subject": "tiny", "input": "1", "output": "1", "valid_from": "2026-01-01T00:00:00"}
    refused = await control.http.post("/prices", json=vague)

    assert made.status_code == 201
    assert (made.json()["output"], made.json()["reasoning"]) == ("0.60", "0.60")
    assert made.json()["valid_from"] == "2026-01-01T00:00:00Z"
    assert (await control.get("/prices", subject="tiny@1.0.0"))["items"] == [made.json()]
    assert (refused.status_code, refused.json()["param"]) == (400, "valid_from")


async def put_calls(db: Database, clock: ManualClock, count: int) -> None:
    identity, finops = IdentityService(clock), FinopsService(clock)
    async with db.write(SYSTEM) as tx:
        tenant = await identity.get_tenant(tx, "default")
        charges = [
            make_charge(
                Ended(
                    call_id=f"call_{number}",
                    at_us=parse_rfc3339(f"2026-03-1{number}T12:00:00Z"),
                    project_id=tenant.project_id,
                    tenant_id=tenant.id,
                    key_id="key_a",
                    alias="chat",
                    outcome=Outcome.OK,
                    status=200,
                    usage=Usage(input=10, output=5),
                    cost_nano=1_500_000,
                    is_estimated=number == 1,
                    duration_us=1,
                    ttft_us=1,
                    chunks=1,
                    attempts=1,
                ),
                "gateway-0",
            )
            for number in range(count)
        ]
        place = SpoolPlace(gateway="gateway-0", epoch="e", seq=0)
        await finops.record(tx, place, count, charges)


async def test_usage_shows_money_as_decimal_and_as_integer(
    control: Control, clock: ManualClock
) -> None:
    await put_calls(control.db, clock, 3)

    (total,) = (await control.get("/usage", tenant="default"))["items"]
    first = await control.get("/usage", by="day, alias", since="2026-03-11", limit=1)
    rest = await control.get("/usage", by="day,alias", since="2026-03-11", after=first["next"])

    assert (total["calls"], total["cost_usd"], total["cost_nano"]) == (3, "0.0045", 4_500_000)
    assert (total["estimated_usd"], total["estimated_nano"]) == ("0.0015", 1_500_000)
    assert [item["groups"] for item in (*first["items"], *rest["items"])] == [
        {"day": "2026-03-11", "alias": "chat"},
        {"day": "2026-03-12", "alias": "chat"},
    ]
    until = await control.get("/usage", until="2026-03-11T12:00:00Z")
    assert until["items"][0]["calls"] == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [({"by": "colour"}, "by"), ({"since": "yesterday"}, "since"), ({"after": "x"}, "after")],
)
async def test_a_question_that_makes_no_sense_is_told(
    control: Control, query: dict[str, str], param: str
) -> None:
    reply = await control.http.get("/usage", params=query)

    assert (reply.status_code, reply.json()["param"]) == (400, param)


async def test_traffic_is_followed(control: Control, clock: ManualClock) -> None:
    await put_calls(control.db, clock, 3)

    newest = await control.get("/traffic", limit=2)
    behind = await control.get("/traffic", after=newest["items"][0]["seq"], limit=2)
    paged = await control.get("/traffic", after=0, limit=2)

    assert [item["call_id"] for item in newest["items"]] == ["call_1", "call_2"]
    assert [item["call_id"] for item in behind["items"]] == ["call_2"]
    assert (newest["next"], paged["next"]) == (None, str(paged["items"][1]["seq"]))
    assert (newest["items"][0]["cost_usd"], newest["items"][0]["cost_nano"]) == (
        "0.0015",
        1_500_000,
    )
    assert newest["items"][0]["at"] == "2026-03-11T12:00:00Z"


# audit and operations


async def test_the_log_is_listed_proved_and_checked(control: Control) -> None:
    await control.http.post("/models", json={"name": "tiny"}, headers={"x-pilotage-reason": "why"})

    report = (await control.http.post("/audit:verify")).json()  # it appends what waits first
    (entry,) = (await control.get("/audit/entries", event="registry."))["items"]
    whole = await control.get(f"/audit/entries/{entry['position']}")
    proof = (await control.http.get(f"/audit/proof?position={entry['position']}")).content
    by_revision = await control.get("/audit/proof", revision=entry["revision_seq"])

    assert (entry["event"], entry["reason"]) == ("registry.model.created", "why")
    assert whole["entry"]["after"]["name"] == "tiny"
    assert (report["is_intact"], report["entries"]) == (True, entry["position"] + 1)
    assert check_file(proof, SIGNER.public.hex()).entry == whole["entry"]
    assert check_file(proof.replace(b"tiny", b"tony")).problem.startswith("the entry is not in")
    assert by_revision["entry"] == msgspec.json.decode(proof)["entry"]
    by_object = await control.get("/audit/proof", object_id=entry["object_id"])
    assert by_object["index"] == entry["position"]
    for wrong in ("", "?position=1&revision=1"):
        assert (await control.http.get(f"/audit/proof{wrong}")).status_code == 400
    assert (await control.http.get("/audit/entries/99")).status_code == 404
    page = await control.get("/audit/entries", limit=1)
    assert (page["items"][0]["event"], page["next"]) == ("audit.log.founded", "0")
    rest = await control.get("/audit/entries", after=page["next"], limit=500)
    assert rest["items"][-1] == entry
    checkpoint = (await control.http.post("/audit:checkpoint")).json()
    assert checkpoint["size"] == report["entries"]
    assert open_checkpoint(checkpoint["checkpoint"], checkpoint["log"], SIGNER.public).size


async def test_entries_are_exported_with_their_proofs(control: Control) -> None:
    for name in ("tiny", "small", "large"):
        await control.http.post("/models", json={"name": name})
    report = (await control.http.post("/audit:verify")).json()

    lines: list[bytes] = []
    place: dict[str, int] = {}
    while place.get("after", 0) is not None:
        page = await control.get("/audit/export", proofs=True, limit=2, **place)
        for position, entry, path in zip(
            page["positions"], page["entries"], page["paths"], strict=True
        ):
            proof = {"index": position, "entry": entry, "path": path}
            named = {name: page[name] for name in ("log", "public_key", "size", "checkpoint")}
            lines.append(msgspec.json.encode(proof | named))
        place["after"] = page["next"]
    plain = await control.get("/audit/export", event="registry.", limit=500)

    assert [check_file(line, SIGNER.public.hex()).problem for line in lines] == [""] * len(lines)
    assert len(lines) == report["entries"]
    assert plain["paths"] is None
    names = [msgspec.json.decode(entry)["after"]["name"] for entry in plain["entries"]]
    assert names == ["tiny", "small", "large"]


async def test_a_log_is_compared_with_a_checkpoint_of_it(control: Control) -> None:
    await control.http.post("/audit:verify")
    kept = (await control.http.post("/audit:checkpoint")).json()
    await control.http.post("/models", json={"name": "tiny"})
    await control.http.post("/audit:verify")

    said = [
        (await control.http.post("/audit:compare", json={"checkpoint": note})).json()
        for note in (kept["checkpoint"], kept["checkpoint"].replace("pilotage", "another"))
    ]

    assert (said[0]["is_good"], said[1]["is_good"]) == (True, False)
    assert f"the first {kept['size']} entries are those" in said[0]["says"]
    assert "cannot be trusted" in said[1]["says"]


async def test_an_operation_that_has_ended_is_not_cancelled(
    control: Control, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tiny_gguf)
    ended = await control.pull("tiny")

    refused = await control.http.post(f"/operations/{ended['id']}:cancel")
    listed = await control.get("/operations", state="succeeded")

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert listed["items"] == [ended]
    assert (await control.get("/operations", state="running"))["items"] == []
