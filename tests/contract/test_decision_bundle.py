"""The bundle of a decision: made on both databases, checked by ours and by a reader of its own."""

import base64
import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

import rfc6962
from governed import World, make_world
from pilotage.audit.open_log import open_log
from pilotage.audit.service import AuditService
from pilotage.core.errors import PilotageError
from pilotage.governance.bundle import PAYLOAD_TYPE, Payload, open_envelope, write_bundle
from pilotage.governance.bundling import Bundles
from pilotage.kit.clock import ManualClock
from pilotage.kit.crypto import Signer
from pilotage.kit.db import Actor, Database
from pilotage.kit.outbox import append_revision
from pilotage.runtime.bundles import verify_bundle

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
CHECKS = ["form", "signature", "audit log", "record", "facts", "change", "approvals", "artifacts"]
ROLLBACK = {"to": "tiny@1.0.0", "command": "pilotage endpoints split chat tiny@1.0.0=100"}
VERSION = {"side": "after", "version_id": "ver_1", "version": "tiny@1.0.0"}


class Made(NamedTuple):
    """A decision with everything there can be in it, and its bundle."""

    world: World
    bundles: Bundles
    decision_id: str
    file: bytes


@pytest.fixture
async def made(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Made]:
    world = await make_world(database, clock)
    await world.approved(needed=1, evidence=("sha256:ab",))
    async with database.write(world.act("ops", "ready: ü")) as tx:
        await world.require(tx)
        await append_revision(tx, "endpoints.endpoint.split", "end_1", 1, {"split": {"dep_2": 1}})
        decision_id = await world.record(tx, evidence=("sha256:ab",), after={"x": "y" * 70_000})
        facts = world.service.add_fact
        await facts(tx, decision_id, "version", VERSION | {"artifact_sha256": "cd" * 32})
        await facts(tx, decision_id, "rollback", ROLLBACK)
    async with database.write(world.act("approves")) as tx:
        await facts(tx, decision_id, "note", {"text": "looks well"})
    async with open_log(tmp_path / "audit", SIGNER) as log:
        bundles = Bundles(database, world.service.decisions, AuditService(database, log), SIGNER)
        file = await bundles.make(world.act("asks"), decision_id)
        yield Made(world, bundles, decision_id, file)


def is_good(file: bytes, key: bytes | None = SIGNER.public) -> bool:
    return all(check.is_good for check in verify_bundle(file, key))


def why(file: bytes, key: bytes | None = SIGNER.public) -> tuple[str, str]:
    """Return the check that fails, and what it says; every one before it holds."""
    *before, last = verify_bundle(file, key)
    assert all(check.is_good for check in before)
    assert not last.is_good
    return last.name, last.said


def payload_of(file: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_envelope(file).payload)
    return found


def sign_again(payload: dict[str, Any], signer: Signer = SIGNER) -> bytes:
    """Return a bundle of another payload, signed: what only a holder of the key can make."""
    return write_bundle(msgspec.convert(payload, Payload), signer.key_id, signer.sign)


async def test_a_bundle_proves_itself_without_a_server(made: Made) -> None:
    checks = verify_bundle(made.file, SIGNER.public)

    assert [check.name for check in checks if check.is_good] == CHECKS
    said = {check.name: check.said for check in checks}
    assert said["form"] == f"a bundle of decision {made.decision_id}"
    assert said["signature"].endswith("the key given")
    assert said["record"] == f"split of chat by {made.world.people['ops']}, as logged"
    assert said["facts"].startswith("4 facts")
    assert said["change"].startswith("2 revisions")
    assert said["approvals"] == "1 used, given by others than who asked"
    assert said["artifacts"] == "1 artifact hashes"
    assert "nobody vouches" in verify_bundle(made.file, None)[1].said


async def test_an_independent_reader_agrees(made: Made) -> None:
    payload = read_by_the_book(made.file, SIGNER.public)

    assert payload["decision"]["id"] == made.decision_id
    assert [fact["kind"] for fact in payload["facts"]] == [
        "approval",
        "version",
        "rollback",
        "note",
    ]


def read_by_the_book(file: bytes, public: bytes) -> dict[str, Any]:
    """Check a bundle by what docs/reference/decision-bundle.md says, with none of our code."""
    envelope = json.loads(file)
    payload_bytes = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload_bytes), payload_bytes)
    key = Ed25519PublicKey.from_public_bytes(public)
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    payload: dict[str, Any] = json.loads(payload_bytes)
    roots = [open_by_the_book(note, key) for note in payload["checkpoints"]]
    logged = {}
    for entry in payload["entries"]:
        size, root = roots[entry["checkpoint"]]
        raw = base64.b64decode(entry["entry"])
        leaf = hashlib.sha256(b"\x00" + raw).digest()
        path = [base64.b64decode(step) for step in entry["path"]]
        assert rfc6962.root_of_path(entry["index"], size, leaf, path) == root
        logged[entry["seq"]] = json.loads(raw)
        if entry["record"] is not None:
            record = base64.b64decode(entry["record"])
            assert hashlib.sha256(record).hexdigest() == logged[entry["seq"]]["record"]["sha256"]
            logged[entry["seq"]] |= json.loads(record)
    decision = payload["decision"]
    own = {name: value for name, value in decision.items() if name != "seq"} | {"rev": 1}
    assert logged[decision["seq"]]["after"] == own
    assert len(payload["facts"]) == decision["rev"] - 1
    for number, fact in enumerate(payload["facts"], 1):
        assert logged[fact["seq"]]["after"]["content"] == fact["content"]
        assert logged[fact["seq"]]["after"]["number"] == fact["number"] == number
    assert set(decision["revisions"]) < set(logged)
    return payload


def open_by_the_book(note: str, key: Ed25519PublicKey) -> tuple[int, bytes]:
    text, _, signature = note.rpartition("\n\n")
    key.verify(base64.b64decode(signature.split(" ")[2])[4:], f"{text}\n".encode())
    _, size, root = text.split("\n")[:3]
    return int(size), base64.b64decode(root)


# what somebody without the key can do

Mutation = Callable[[random.Random, bytes], bytes]


def flip_a_bit(chance: random.Random, file: bytes) -> bytes:
    place = chance.randrange(len(file))
    return file[:place] + bytes([file[place] ^ 1 << chance.randrange(8)]) + file[place + 1 :]


def cut(chance: random.Random, file: bytes) -> bytes:
    return file[: chance.randrange(len(file))]


def insert(chance: random.Random, file: bytes) -> bytes:
    place = chance.randrange(len(file) + 1)
    return file[:place] + chance.choice([b" ", b"\n", b"A", b"="]) + file[place:]


def edit_a_field(chance: random.Random, file: bytes) -> bytes:
    payload = payload_of(file)
    holders = [payload["decision"], *payload["facts"], *payload["approvals"], *payload["entries"]]
    holder = chance.choice(holders)
    name = chance.choice(sorted(holder))
    holder[name] = vary(chance, holder[name])
    return seal(file, payload)


def drop_something(chance: random.Random, file: bytes) -> bytes:
    payload = payload_of(file)
    things = payload[chance.choice(["facts", "entries", "approvals", "artifacts", "checkpoints"])]
    del things[chance.randrange(len(things))]
    return seal(file, payload)


def swap_proofs(chance: random.Random, file: bytes) -> bytes:
    payload = payload_of(file)
    one, other = chance.sample(payload["entries"], 2)
    name = chance.choice(["path", "entry", "index", "seq"])
    if one[name] == other[name]:
        one[name] = vary(chance, one[name])
    one[name], other[name] = other[name], one[name]
    return seal(file, payload)


def sign_with_another_key(chance: random.Random, file: bytes) -> bytes:
    payload = payload_of(file)
    payload["decision"]["reason"] += str(chance.random())
    payload["log"]["public_key"] = chance.choice([OTHER, SIGNER]).public.hex()
    return sign_again(payload, OTHER)


def vary(chance: random.Random, value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    if isinstance(value, bool) or value is None:
        return "else"
    if isinstance(value, int):
        return value + chance.choice([-1, 1])
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list):
        return [*value, "AAAA"] if not value or chance.random() < 0.5 else value[:-1]
    return value | {"more": chance.random()}


def seal(file: bytes, payload: dict[str, Any]) -> bytes:
    """Put another payload into an envelope that keeps its signature."""
    envelope = json.loads(file)
    content = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    envelope["payload"] = base64.b64encode(content).decode()
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


MUTATIONS: list[Mutation] = [
    flip_a_bit,
    cut,
    insert,
    edit_a_field,
    drop_something,
    swap_proofs,
    sign_with_another_key,
]


async def test_a_thousand_mutations_are_all_detected(made: Made) -> None:
    assert seal(made.file, payload_of(made.file)) == made.file
    undetected = []

    for seed in range(1_000):
        chance = random.Random(seed)
        mutated = chance.choice(MUTATIONS)(chance, made.file)
        assert mutated != made.file
        if is_good(mutated):
            undetected.append(seed)

    assert undetected == []


async def test_the_independent_reader_finds_what_ours_finds(made: Made) -> None:
    for seed in range(100):
        chance = random.Random(seed)
        mutated = chance.choice([edit_a_field, drop_something, swap_proofs])(chance, made.file)
        with pytest.raises(InvalidSignature):
            read_by_the_book(mutated, SIGNER.public)


async def test_another_key_than_the_one_that_is_trusted_is_named(made: Made) -> None:
    name, said = why(made.file, OTHER.public)

    assert name == "form"
    assert said == f"it is of the key {SIGNER.key_id}, not of {OTHER.key_id}"


# what even a holder of the key cannot do without rewriting the log


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda p: p["decision"].update(reason="another"), "record"),
    (lambda p: p["decision"].update(by="somebody"), "record"),
    (lambda p: p["decision"].update(before={"split": {}}), "record"),
    (lambda p: p["decision"].update(revisions=[]), "record"),
    (lambda p: p["decision"].update(seq=p["facts"][0]["seq"]), "record"),
    (lambda p: p["facts"].pop(), "facts"),
    (lambda p: p["facts"].pop(1), "facts"),
    (lambda p: p["facts"][1].update(kind="note"), "facts"),
    (lambda p: p["facts"][2]["content"].update(to="elsewhere"), "facts"),
    (lambda p: p["facts"][2].update(by="somebody"), "facts"),
    (lambda p: p["facts"][2].update(seq=p["facts"][1]["seq"]), "facts"),
    (lambda p: p["entries"].pop(0), "approvals"),
    (lambda p: p["entries"].pop(), "facts"),
    (lambda p: p["entries"].reverse(), "audit log"),
    (lambda p: p["entries"].append(p["entries"][-1]), "audit log"),
    (lambda p: p["entries"][0].update(index=0), "audit log"),
    (lambda p: p["entries"][0].update(checkpoint=7), "audit log"),
    (lambda p: p["entries"][0].update(seq=99), "audit log"),
    (lambda p: p["entries"][0].update(path=p["entries"][1]["path"]), "audit log"),
    (lambda p: p["entries"][0].update(record="AAAA"), "audit log"),
    (lambda p: p["entries"][4].update(record="AAAA"), "audit log"),
    (lambda p: p["log"].update(name="pilotage.audit/other"), "audit log"),
    (lambda p: p["approvals"].pop(), "approvals"),
    (lambda p: p["approvals"][0].update(needed=0), "approvals"),
    (lambda p: p["approvals"][0]["votes"][0].update(by="also"), "approvals"),
    (lambda p: p["artifacts"].pop(), "artifacts"),
    (lambda p: p["artifacts"][0].update(sha256="00"), "artifacts"),
]


async def test_what_is_signed_anew_still_has_to_agree_with_the_log(made: Made) -> None:
    assert is_good(sign_again(payload_of(made.file)))

    found = []
    for change, _ in CHANGES:
        payload = payload_of(made.file)
        change(payload)
        found.append(why(sign_again(payload))[0])

    assert found == [check for _, check in CHANGES]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "no bundle"),
        (b"{}", "no bundle"),
        (b"\xff", "no bundle"),
        (b'{"payload":"","payloadType":"x","signatures":[]}\n', "'x'"),
        (b'{"payload":"","payloadType":"%s","signatures":[]}\n' % PAYLOAD_TYPE.encode(), "0 sig"),
    ],
)
def test_a_file_that_is_no_bundle_says_so(file: bytes, said: str) -> None:
    name, found = why(file)

    assert name == "form"
    assert said in found


async def test_who_may_not_see_a_decision_gets_no_bundle(made: Made) -> None:
    elsewhere = Actor(principal_id=made.world.people["asks"], project_id="prj_other")

    with pytest.raises(PilotageError) as missing:
        await made.bundles.make(elsewhere, made.decision_id)

    assert missing.value.code == "not_found"
