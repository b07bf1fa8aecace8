"""From the control API to the section that gateways read, on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_api import Api, open_api
from pilotage.core.errors import PilotageError
from pilotage.gateway.snapshots import SnapshotReader, SnapshotView
from pilotage.runtime.installation import open_snapshot_signer
from postgres_server import PostgresServer

ANY = {"if-match": "*"}


@pytest.fixture
async def api(postgres_or_none: PostgresServer | None, tmp_path: Path) -> AsyncIterator[Api]:
    url = "sqlite" if postgres_or_none is None else postgres_or_none.make_empty()
    async with open_api(tmp_path, url) as opened:
        yield opened


def look(api: Api) -> SnapshotView:
    """Return the Snapshot that gateways would read now."""
    signer = open_snapshot_signer(api.folder)
    return SnapshotReader(api.folder.snapshots, signer.public).load(None)


def section(api: Api) -> str:
    found = look(api).manifest.sections.get("prompts")
    return found.sha256 if found else ""


async def make_version(api: Api, version: str) -> None:
    text = f"{version}: {{{{ x }}}}"
    await api.make("/prompts/greeting/versions", {"version": version, "text": text})


async def tag(api: Api, version: str) -> None:
    path, body = "/prompts/greeting/labels/production", {"version": version}
    reply = await api.http.put(path, json=body, headers=ANY)
    assert reply.status_code == 200, reply.text


async def test_a_prompt_can_be_called_before_its_creation_returns(api: Api) -> None:
    project = (await api.show("/projects/default"))["id"]
    assert section(api) == ""

    await api.make("/prompts", {"name": "greeting"})
    await make_version(api, "1.0.0")
    await tag(api, "1.0.0")

    book = look(api).prompts
    for text in ("greeting@1.0.0", "greeting@production"):
        ready = book.get(project, text)
        assert ready.ref == "greeting@1.0.0"
        assert ready.fill({"x": "a"}, 99)[0].content == "1.0.0: a"

    await make_version(api, "1.1.0")
    await tag(api, "1.1.0")
    assert look(api).prompts.get(project, "greeting@production").ref == "greeting@1.1.0"

    await api.http.delete("/prompts/greeting/versions/1.0.0")
    with pytest.raises(PilotageError, match=r"'greeting@1\.0\.0' does not exist"):
        look(api).prompts.get(project, "greeting@1.0.0")


async def test_other_changes_leave_the_section_as_it_is(api: Api) -> None:
    await api.make("/prompts", {"name": "greeting"})
    await make_version(api, "1.0.0")
    before, n = section(api), look(api).n

    await api.make("/tenants", {"name": "acme"})
    assert (section(api), look(api).n > n) == (before, True)

    await api.http.delete("/prompts/greeting")
    assert section(api) == ""


async def test_the_version_that_is_taken_is_named(api: Api) -> None:
    await api.make("/prompts", {"name": "greeting"})
    reply = await api.http.post(
        "/prompts/greeting/versions",
        json={"version": "1.0.0", "messages": [{"role": "user", "content": "{{ a b }}"}]},
    )

    assert reply.status_code == 400
    assert reply.json()["param"] == "messages[0].content"
