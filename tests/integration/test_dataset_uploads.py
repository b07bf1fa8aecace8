"""Datasets through the whole control API: pushed, checked, exported, and not lost to garbage."""

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from control_api import Api, Json, open_api
from system import poll

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with open_api(tmp_path_factory.mktemp("installation")) as opened:
        await opened.make("/datasets", {"name": "questions"})
        yield opened


def lines(*items: object) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


async def push(api: Api, version: str, splits: dict[str, bytes], **more: Any) -> Json:  # noqa: ANN401
    files = {}
    for split, content in splits.items():
        blob = await api.make("/blobs", content=content)
        files[split] = {f"{split}.jsonl": blob["sha256"]}
    body = {"version": version, "format": "jsonl", "files": files} | more
    started = await api.make("/datasets/questions/versions", body)
    return await poll(
        lambda: api.show(f"/operations/{started['id']}"), lambda seen: seen["state"] != "running"
    )


async def test_a_version_is_pushed_shown_and_fetched(api: Api) -> None:
    train, test = lines({"q": "a"}, {"q": "b"}, {"q": "b"}), lines({"q": "c", "n": 1})
    said = {
        "license": "CC0-1.0",
        "pii": "masked",
        "pii_scanned_by": "presidio",
        "pii_findings": {"email": 2},
        "keep_until": "2033-01-01",
    }

    ended = await push(api, "1.0.0", {"train": train, "test": test}, **said)
    shown = await api.show("/datasets/questions/versions/1.0.0")
    path = "/datasets/questions/versions/1.0.0"
    files = (await api.show(f"{path}/files"))["items"]
    fetched = await api.http.get(f"{path}/content", params={"place": "train/train.jsonl"})
    manifest = (await api.http.get(f"{path}/content")).content

    assert ended["result"] == {"dataset": "questions@1.0.0", "id": shown["id"]}
    assert shown["splits"] == [
        {"name": "train", "files": 1, "records": 3, "bytes": len(train)},
        {"name": "test", "files": 1, "records": 1, "bytes": len(test)},
    ]
    assert (shown["duplicates"], shown["leaks"], shown["records"]) == (1, {}, 4)
    assert shown["schema_summary"] == {"q": {"string": 4}, "n": {"integer": 1}}
    assert {name: shown[name] for name in said} == said | {"keep_until": "2033-01-01T00:00:00Z"}
    assert [file["place"] for file in files] == ["test/test.jsonl", "train/train.jsonl"]
    assert fetched.content == train
    assert hashlib.sha256(manifest).hexdigest() == shown["manifest_sha256"]


async def test_a_leak_is_refused_unless_told(api: Api) -> None:
    splits = {"train": lines({"q": 1, "a": 2}), "validation": lines({"a": 2, "q": 1})}

    refused = await push(api, "2.0.0", splits)
    told = await push(api, "2.0.0", splits, leak_reason="a smoke test")

    assert refused["error"]["code"] == "invalid_dataset"
    assert "1 in train and validation" in refused["error"]["detail"]
    assert told["state"] == "succeeded"
    shown = await api.show("/datasets/questions/versions/2.0.0")
    assert (shown["leaks"], shown["leak_reason"]) == ({"train and validation": 1}, "a smoke test")


async def test_wrong_lines_are_named_and_nothing_is_made(api: Api) -> None:
    ended = await push(api, "3.0.0", {"train": b'{"q": 1}\nnope\n'})

    assert ended["error"]["code"] == "invalid_dataset"
    assert "train.jsonl line 2: it is not JSON" in ended["error"]["detail"]
    assert (await api.http.get("/datasets/questions/versions/3.0.0")).status_code == 404


async def test_files_that_nobody_sent_are_told(api: Api) -> None:
    body = {"version": "4.0.0", "format": "jsonl", "files": {"train": {"a.jsonl": "ab" * 32}}}
    started = await api.make("/datasets/questions/versions", body)
    ended = await poll(
        lambda: api.show(f"/operations/{started['id']}"), lambda seen: seen["state"] != "running"
    )
    assert ended["error"]["code"] == "not_found"


async def test_what_a_version_is_made_of_is_garbage_once_it_is_deleted(api: Api) -> None:
    content = lines({"q": "soon garbage"})
    await push(api, "5.0.0", {"train": content})
    sha256 = hashlib.sha256(content).hexdigest()
    path = api.folder.blobs / sha256[:2] / sha256
    moment = time.time() - 2 * 86_400

    async def collect() -> bool:
        os.utime(path, (moment, moment))
        async with api.db.engine.begin() as conn:
            await conn.exec_driver_sql("UPDATE blob SET uploaded_at_us = 0")
        await api.make("/blobs:collect", {"dry_run": False})
        return path.exists()

    is_there = [await collect()]
    assert (await api.http.delete("/datasets/questions/versions/5.0.0")).status_code == 204
    is_there.append(await collect())

    assert is_there == [True, False]
