"""Artifacts through the whole control API: trees, archives, bombs, pickles, gs://, garbage."""

import asyncio
import hashlib
import io
import json
import os
import pickle
import resource
import stat
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import save

from control_api import Api, Json, open_api
from pilotage.kit.db import SYSTEM
from pilotage.kit.outbox import read_revisions
from system import poll

pytestmark = pytest.mark.asyncio(loop_scope="module")
WEIGHTS = save({"a": np.zeros((4, 4), np.float32), "b": np.zeros(3, np.float16)})
FOLDER = {
    "model.safetensors": WEIGHTS,
    "config.json": json.dumps({"model_type": "llama", "max_position_embeddings": 512}).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
    "README.md": b"---\nlicense: apache-2.0\n---\n# A card\n",
}
PICKLE = pickle.dumps({"a": 1})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with open_api(tmp_path_factory.mktemp("installation")) as opened:
        yield opened


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def list_blobs(api: Api) -> set[str]:
    return {path.name for path in api.folder.blobs.rglob("*") if path.is_file()}


async def push(api: Api, files: dict[str, bytes], **more: Any) -> httpx.Response:  # noqa: ANN401
    for content in files.values():
        await api.make("/blobs", content=content)
    body = {"files": {path: sha256(content) for path, content in files.items()}}
    return await api.http.post("/artifacts:tree", json=body | more)


async def send(api: Api, content: bytes, **query: str) -> httpx.Response:
    return await api.http.post("/artifacts", content=content, params=query)


async def refuse(api: Api, content: bytes, **query: str) -> Json:
    """Send what is refused; nothing of it may be left behind."""
    before = list_blobs(api)
    reply = await send(api, content, **query)
    assert reply.status_code in (400, 413), reply.text
    assert list_blobs(api) == before
    problem: Json = reply.json()
    return problem


# trees


async def test_a_folder_becomes_a_version_with_what_it_says_of_itself(api: Api) -> None:
    made = (await push(api, FOLDER)).json()
    await api.make("/models", {"name": "folder"})
    version = await api.make(
        "/models/folder/versions", {"version": "1.0.0", "artifact_sha256": made["sha256"]}
    )

    info = made["info"]
    assert (made["format"], made["file_count"]) == ("safetensors", 5)
    assert made["size_bytes"] == sum(map(len, FOLDER.values()))
    assert (info["architecture"], info["context_length"], info["parameters"]) == ("llama", 512, 19)
    assert (info["dtypes"], info["quantization"]) == ({"F32": 16, "F16": 3}, "F32")
    assert (info["license"], info["license_from"]) == ("Apache-2.0", "README.md")
    assert (info["has_tokenizer"], info["has_chat_template"]) == (True, True)
    assert (version["license"], version["context_tokens"]) == ("Apache-2.0", 512)
    evidence = await api.show("/models/folder/versions/1.0.0/evidence")
    judged = {item["kind"]: (item["subject"], item["passed"]) for item in evidence["items"]}
    assert judged["scan.format"] == ("safetensors", True)
    assert judged["licence"] == ("Apache-2.0", True)


async def test_the_identity_of_a_tree_is_that_of_its_manifest(api: Api) -> None:
    made = (await push(api, FOLDER)).json()
    again = (await push(api, dict(reversed(FOLDER.items())))).json()
    path = f"/artifacts/{made['sha256']}"

    manifest = (await api.http.get(f"{path}/content")).content
    files = (await api.show(f"{path}/files"))["items"]
    config = await api.http.get(f"{path}/content", params={"path": "config.json"})

    assert made["sha256"] == again["sha256"] == sha256(manifest)
    assert files == [
        {"path": name, "sha256": sha256(FOLDER[name]), "size": len(FOLDER[name])}
        for name in sorted(FOLDER)
    ]
    assert json.loads(manifest) == {"files": files, "version": 1}
    assert config.content == FOLDER["config.json"]


async def test_only_what_is_new_is_asked_for(api: Api) -> None:
    await push(api, FOLDER)
    new = sha256(b"never sent")
    hashes = [new, *map(sha256, FOLDER.values())]

    assert await api.make("/blobs:missing", {"sha256": hashes}) == {"missing": [new]}
    refused = await api.http.post("/artifacts:tree", json={"files": {"a.txt": new}})
    assert (refused.status_code, refused.json()["param"]) == (404, "files")


async def test_another_project_cannot_name_what_it_has_not_sent(api: Api) -> None:
    await push(api, FOLDER)
    await api.make("/projects", {"name": "apart"})
    body = {"files": {"model.safetensors": sha256(WEIGHTS)}}

    refused = await api.http.post("/artifacts:tree", json=body, params={"project": "apart"})
    sent = await api.http.post("/blobs", content=WEIGHTS, params={"project": "apart"})
    made = await api.http.post("/artifacts:tree", json=body, params={"project": "apart"})

    assert refused.status_code == 404
    assert (sent.status_code, made.status_code) == (201, 201)


async def test_a_blob_that_is_not_what_was_promised_is_not_kept(api: Api) -> None:
    before = list_blobs(api)
    reply = await api.http.post("/blobs", content=b"other", params={"sha256": sha256(b"this")})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_artifact")
    assert list_blobs(api) == before


INDEX = {"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model.safetensors": WEIGHTS[:-1]}, "model.safetensors"),
        ({"model.safetensors": b"no tensors"}, "model.safetensors"),
        ({"model.gguf": WEIGHTS}, "model.gguf"),
        ({"config.json": b"{"}, "config.json"),
        ({"config.json": b'{"a":' * 50_000}, "nested too deep"),
        (
            {"m.safetensors.index.json": json.dumps(INDEX | {"weight_map": {"a": "x"}}).encode()},
            "'x'",
        ),
        (
            {"m.safetensors.index.json": b'{"weight_map": {"c": "model.safetensors"}}'},
            "'c' is not in 'model.safetensors'",
        ),
        ({"m.safetensors.index.json": b"[]"}, "weight_map"),
        ({"sub/data.bin": PICKLE}, "pickle"),
        ({"notes.bin": b"a text"}, "pickle"),
    ],
)
async def test_a_folder_that_is_not_whole_is_refused(
    api: Api, change: dict[str, bytes], why: str
) -> None:
    reply = await push(api, FOLDER | change)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_artifact")
    assert why in reply.json()["detail"]


async def test_a_whole_index_and_a_folder_of_texts(api: Api) -> None:
    index = {"m.safetensors.index.json": json.dumps(INDEX).encode()}
    assert (await push(api, FOLDER | index)).status_code == 201
    texts = await push(api, {"README.md": b"# Nothing"})
    assert "none of its files are weights" in texts.json()["detail"]


# single files


async def test_a_file_that_the_gguf_package_wrote_is_read(api: Api, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_context_length(128)
    writer.add_license("mit")
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))
    writer.add_tensor("output_norm.weight", np.zeros(8, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    info = (await send(api, (tmp_path / "a.gguf").read_bytes())).json()["info"]

    assert (info["format"], info["architecture"], info["context_length"]) == ("gguf", "llama", 128)
    assert (info["parameters"], info["tensor_count"], info["license"]) == (40, 2, "MIT")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            b"GGUF" + (3).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little") + bytes(8),
            str(1 << 60),
        ),
        (b"GGUF" + bytes(2), "ends inside"),
        ((1 << 63).to_bytes(8, "little") + b"{}", str(1 << 63)),
        (WEIGHTS[:-1], "cut off"),
        (b"GIF89a", "GIF8"),
        (b"", "starts with b''"),
        (PICKLE, "pickle"),
    ],
)
async def test_a_file_that_is_none_is_refused(api: Api, content: bytes, why: str) -> None:
    problem = await refuse(api, content)
    assert problem["code"] == "invalid_artifact"
    assert why in problem["detail"]


# pickles


async def test_a_pickle_comes_in_with_a_reason_from_who_may_say_so(api: Api) -> None:
    why = {"x-pilotage-reason": "an old model, read in a sandbox"}
    asked = {"params": {"allow_pickles": "true"}, "content": PICKLE}
    viewer = {"authorization": f"Bearer {await api.make_viewer()}"}

    without = await api.http.post("/artifacts", **asked)  # type: ignore[arg-type]
    stranger = await api.http.post("/artifacts", headers=why | viewer, **asked)  # type: ignore[arg-type]
    let_in = await api.http.post("/artifacts", headers=why, **asked)  # type: ignore[arg-type]

    assert (without.status_code, without.json()["param"]) == (400, "allow_pickles")
    assert stranger.status_code == 403
    info = let_in.json()["info"]
    assert let_in.json()["format"] == "pickle"
    assert info["pickles"] == [["the file", sha256(PICKLE), "protocol 4"]]
    assert info["pickle_reason"] == why["x-pilotage-reason"]
    await api.make("/models", {"name": "old"})
    body = {"version": "1.0.0", "artifact_sha256": sha256(PICKLE)}
    await api.make("/models/old/versions", body)
    evidence = (await api.show("/models/old/versions/1.0.0/evidence"))["items"]
    assert [item["passed"] for item in evidence if item["kind"] == "scan.format"] == [False]
    claim = {"items": [{"kind": "scan.format", "subject": "pickle", "passed": True}]}
    claimed = await api.http.post("/models/old/versions/1.0.0/evidence", json=claim)
    assert (claimed.status_code, claimed.json()["param"]) == (400, "kind")
    assert (await api.show("/models/old/versions/1.0.0/evidence"))["items"] == evidence


# archives


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


async def test_an_archive_is_the_tree_that_is_in_it(api: Api) -> None:
    tree = (await push(api, FOLDER)).json()
    packed = zipped(FOLDER)

    made = await send(api, packed, unpack="zip")

    assert made.status_code == 201, made.text
    assert made.json()["sha256"] == tree["sha256"]
    assert sha256(packed) not in list_blobs(api)


def linked() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return made.getvalue()


def twice() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    return made.getvalue()


def overlapping() -> bytes:
    """Two names in the directory for one entry, as in bombs whose ratio has no bound."""
    whole = bytearray(zipped({"a": b"0" * 1000, "b": b"1" * 1000}))
    begin = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 4)
    whole[begin + 42 : begin + 46] = bytes(4)  # the second lies where the first does
    return bytes(whole)


BAD = {
    "outside": (zipped({"../a": b"x"}), "'..'"),
    "absolute": (zipped({"/etc/a": b"x"}), "not relative"),
    "backslash": (zipped({"a\\..\\b": b"x"}), "backslash"),
    "drive": (zipped({"C:a": b"x"}), "not relative"),
    "case": (zipped({"A": b"x", "a": b"y"}), "one path"),
    "folder and file": (zipped({"a": b"x", "a/b": b"y"}), "folder of"),
    "twice": (twice(), "twice"),
    "link": (linked(), "link"),
    "overlap": (overlapping(), "overlap"),
    "lzma": (zipped({"a": b"x"}, zipfile.ZIP_LZMA), "packed in a way"),
    "before": (b"MZ" + zipped({"a": b"x"}), "around"),
    "behind": (zipped({"a": b"x"}) + b"x" * 70_000, "no directory"),
    "cut": (zipped({"a": b"x"})[:-30], "no directory"),
    "no archive": (b"hello", "no directory"),
    "damaged": (zipped({"a.txt": b"x" * 100}).replace(b"K\x04\x05", b"K\xff\xff"), ""),
    "nested": (
        zipped({"m.safetensors": WEIGHTS, "more.zip": zipped({"a": zipped({"b": b"c"})})}),
        "archive within",
    ),
    "pickle": (zipped({"m.safetensors": WEIGHTS, "a.txt": PICKLE}), "pickle"),
    "nothing": (zipped({}), "entries"),
}


@pytest.mark.parametrize("what", BAD)
async def test_an_archive_that_is_none_leaves_nothing_behind(api: Api, what: str) -> None:
    content, why = BAD[what]
    problem = await refuse(api, content, unpack="zip")
    assert problem["code"] in ("invalid_artifact", "invalid_request")
    assert why in problem["detail"]


def bomb(members: int, size: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(members):
            with archive.open(f"f{number}", "w", force_zip64=True) as member:
                for _ in range(size >> 20):
                    member.write(bytes(1 << 20))
    return made.getvalue()


def claim(content: bytes, size: int) -> bytes:
    """Make the directory and the entries claim that their files are smaller than they are."""
    changed = bytearray(content)
    for magic, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = changed.find(magic)
        while at >= 0:
            changed[at + place : at + place + 4] = size.to_bytes(4, "little")
            at = changed.find(magic, at + 4)
    return bytes(changed)


async def test_a_bomb_is_refused_before_it_is_unpacked(api: Api) -> None:
    packed = bomb(4, 64 << 20)
    lying = claim(zipped({"a.txt": bytes(8 << 20)}), 1000)
    crowd = zipped({f"f{number}": b"" for number in range(10_001)})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()

    problems = [await refuse(api, content, unpack="zip") for content in (packed, lying, crowd)]

    assert "times its size" in problems[0]["detail"]
    assert problems[1]["code"] == "invalid_artifact"
    assert "10001 entries" in problems[2]["detail"]
    assert time.monotonic() - began < 20  # machine busy with other tests
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 128 << 10


# gs://


async def bring(api: Api, uri: str) -> Json:
    started = await api.make("/artifacts:import", {"uri": uri})
    return await poll(
        lambda: api.show(f"/operations/{started['id']}"), lambda seen: seen["state"] != "running"
    )


async def test_a_folder_of_the_data_folder_becomes_an_artifact(api: Api) -> None:
    bucket = api.folder.gs / "models"
    for name, content in FOLDER.items():
        target = bucket / "chat" / "v1" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    tree = (await push(api, FOLDER)).json()

    folder = await bring(api, "gs://models/chat/v1/")
    file = await bring(api, "gs://models/chat/v1/model.safetensors")

    assert folder["result"] == {"sha256": tree["sha256"]}
    assert file["result"] == {"sha256": sha256(WEIGHTS)}


async def test_nothing_is_brought_from_elsewhere(api: Api, tmp_path: Path) -> None:
    bucket = api.folder.gs / "bad"
    (bucket / "empty").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(WEIGHTS)
    (bucket / "link").symlink_to(tmp_path / "secret")
    (bucket / "away").symlink_to(tmp_path)
    (bucket / "inner").mkdir()
    (bucket / "inner" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(bucket / "pipe")

    for path in ("nothing", "nothing/at/all", "empty"):
        assert (await bring(api, f"gs://bad/{path}"))["error"]["code"] == "not_found"
    for path in ("link", "away", "away/secret", "inner", "pipe", "inner/link", "link/x"):
        ended = await bring(api, f"gs://bad/{path}")
        assert ended["error"]["code"] == "invalid_request", path
        assert "link or a device" in ended["error"]["detail"]
    for uri in (
        "gs://",
        "s3://a/b",
        "/etc",
        "gs://../x",
        "gs://a..b/x",
        "gs://bad/../x",
        "gs://B/a",
    ):
        reply = await api.http.post("/artifacts:import", json={"uri": uri})
        assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request"), uri


# garbage


def age(api: Api, content: bytes) -> None:
    """Make a blob older than a day."""
    path = api.folder.blobs / sha256(content)[:2] / sha256(content)
    moment = time.time() - 2 * 86_400
    os.utime(path, (moment, moment))


async def forget_uploads(api: Api) -> None:
    """Make what was uploaded older than a day."""
    async with api.db.engine.begin() as conn:
        await conn.exec_driver_sql("UPDATE blob SET uploaded_at_us = 0")


async def test_only_old_and_unused_blobs_are_garbage(api: Api) -> None:
    await push(api, FOLDER)
    for content in (b"unused and old", b"unused and young"):
        await api.make("/blobs", content=content)
    for content in (*FOLDER.values(), b"unused and old"):
        age(api, content)
    await forget_uploads(api)

    counted = await api.make("/blobs:collect", {"dry_run": True})
    assert (counted["blobs"], counted["bytes"], counted["deleted"]) == (1, 14, False)
    assert sha256(b"unused and old") in list_blobs(api)
    removed = await api.make("/blobs:collect", {"dry_run": False})

    assert (removed["blobs"], removed["deleted"]) == (1, True)
    assert sha256(b"unused and old") not in list_blobs(api)
    assert {sha256(b"unused and young"), *map(sha256, FOLDER.values())} <= list_blobs(api)
    missing = await api.make("/blobs:missing", {"sha256": [sha256(b"unused and old")]})
    assert missing == {"missing": [sha256(b"unused and old")]}
    async with api.db.read(SYSTEM) as tx:
        events = [item.event for item in await read_revisions(tx, 0, 10_000)]
    assert events.count("registry.blobs.collected") == 1


async def test_what_is_being_registered_is_no_garbage(api: Api) -> None:
    files = {"m.safetensors": WEIGHTS, "race.txt": b"raced for"}
    body = {"files": {path: sha256(content) for path, content in files.items()}}
    for _ in range(5):
        for content in files.values():
            await api.make("/blobs", content=content)
        age(api, b"raced for")
        await forget_uploads(api)
        made, _ = await asyncio.gather(
            api.http.post("/artifacts:tree", json=body),
            api.make("/blobs:collect", {"dry_run": False}),
        )
        if made.status_code == 201:
            assert sha256(b"raced for") in list_blobs(api)
            assert (await api.http.delete(f"/artifacts/{made.json()['sha256']}")).status_code == 204
        else:
            assert made.json()["code"] == "not_found"


async def test_an_artifact_in_use_stays_and_a_deleted_one_can_come_back(api: Api) -> None:
    files = FOLDER | {"mark.txt": b"comes back"}
    made = (await push(api, files)).json()
    path = f"/artifacts/{made['sha256']}"
    await api.make("/models", {"name": "user"})
    body = {"version": "1.0.0", "artifact_sha256": made["sha256"]}
    await api.make("/models/user/versions", body)

    in_use = await api.http.delete(path)
    await api.http.delete("/models/user/versions/1.0.0")
    deleted = await api.http.delete(path)
    gone = await api.http.get(path)
    back = await push(api, files)

    assert (in_use.status_code, in_use.json()["code"]) == (409, "conflict")
    assert (deleted.status_code, gone.status_code, back.status_code) == (204, 404, 201)
    assert len((await api.show(f"{path}/files"))["items"]) == len(files)


async def test_what_the_engine_here_cannot_run_is_not_deployed(api: Api) -> None:
    made = (await push(api, FOLDER)).json()
    await api.make("/models", {"name": "wide"})
    body = {"version": "1.0.0", "artifact_sha256": made["sha256"]}
    await api.make("/models/wide/versions", body)
    await api.make("/endpoints", {"name": "wide"})

    reply = await api.http.post("/endpoints/wide/deployments", json={"model": "wide@1.0.0"})

    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
    assert "safetensors" in reply.json()["detail"]
