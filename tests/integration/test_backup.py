"""Backups of a running control plane, and what becomes of them on another machine."""

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from control_api import Api, furnish, open_api, open_there, wait_for_feedback
from pilotage.core.errors import PilotageError
from pilotage.core.frames import encode_frame
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import SpoolPlace
from pilotage.finops.users import Users
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.operations import Progress
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from pilotage.kit.spool import open_spool
from pilotage.migrations.tables import get_metadata
from pilotage.runtime.backup.archive import MANIFEST, ArchiveWriter, Manifest, verify_archive
from pilotage.runtime.backup.check import verify_restored
from pilotage.runtime.backup.restore import restore_backup
from pilotage.runtime.backup.rows import reflect_tables
from pilotage.runtime.installation import open_database
from postgres_server import PostgresServer
from users_calls import end

PASSPHRASE = "a long enough passphrase"
CHANGING = {"operation", "snapshot_line"}  # the backup runs, the publisher goes on


async def wait(api: Api, operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation once it has ended."""
    while operation["state"] == "running":
        operation = await api.show(f"/operations/{operation['id']}")
    return operation


async def back_up(api: Api, **wish: object) -> tuple[Path, dict[str, Any]]:
    ended = await wait(api, await api.make("/backups", wish))
    assert ended["state"] == "succeeded", ended
    return api.folder.backups / ended["result"]["file"], ended["result"]


async def read_rows(db: Database) -> dict[str, list[tuple[object, ...]]]:
    async with db.engine.connect() as conn:
        return {
            table.name: sorted(map(tuple, await conn.execute(sa.select(table))), key=repr)
            for table in get_metadata().sorted_tables
            if table.name not in CHANGING
        }


async def put_users(api: Api, *names: str) -> None:
    """Write calls of named users to the ledger, as the worker does."""
    tenant = await api.show("/tenants/default")
    users = Users(Vault(open_root_keys(api.folder.root_keys)))
    finops = FinopsService(api.clock)
    async with api.db.write(SYSTEM) as tx:
        charges = [
            make_charge(end(f"call_{n}", name, tenant["id"], tenant["project_id"]), "gateway-9")
            for n, name in enumerate(names)
        ]
        place = SpoolPlace(gateway="gateway-9", epoch="e", seq=0)
        await finops.record(tx, place, len(charges), await users.label(tx, charges))


def settings_of(path: Path, database_url: str = "sqlite") -> Settings:
    return msgspec.convert(
        {"data_dir": str(path), "database": {"url": database_url}}, type=Settings
    )


async def restore(archive: Path, settings: Settings, passphrase: str = PASSPHRASE) -> Manifest:
    return await restore_backup(archive, settings, SystemClock(), passphrase, Progress())


MakeUrl = Callable[[str], str]


@pytest.fixture
def make_url(request: pytest.FixtureRequest) -> MakeUrl:
    """Return how an empty database of a kind is had."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return kind
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.make_empty()

    return make


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "sqlite"), ("sqlite", "postgres"), ("postgres", "sqlite")],
)
async def test_a_restored_copy_is_what_was_there_on_either_database(
    tmp_path: Path, tiny_gguf: Path, make_url: MakeUrl, source: str, target: str
) -> None:
    async with open_api(tmp_path / "old", make_url(source)) as api:
        await furnish(api, tiny_gguf)
        await put_users(api, "Ada", "Bob", "Ü\U0001f600")
        await wait_for_feedback(api)
        before = await read_rows(api.db)
        archive, made = await back_up(api, passphrase=PASSPHRASE)
        users = await api.show("/users")

    assert (made["has_models"], made["has_keys"]) == (True, True)
    assert made["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert made["size_bytes"] == archive.stat().st_size
    assert archive.stat().st_mode & 0o777 == 0o600
    settings = settings_of(tmp_path / "new", make_url(target))
    manifest = await restore(archive, settings)
    assert (manifest.id, manifest.log_size) == (made["id"], made["log_size"])
    db = open_database(settings, DataFolder(tmp_path / "new"), SystemClock())
    after = await read_rows(db)
    await db.close()
    assert set(after) == set(before)
    for table, rows in before.items():
        if table not in ("revision", "audit_index", "outbox_cursor", "data_key"):
            assert after[table] == rows, table
    assert after["revision"][: len(before["revision"])] == before["revision"]
    findings = await verify_restored(settings, SystemClock(), manifest)
    assert [item.says for item in findings if not item.is_good] == []
    assert "word for word" in " ".join(item.says for item in findings)

    async with open_there(settings) as restored:
        assert await restored.show("/users") == users
        names = {item["name"] for item in users["items"]}
        assert names == {"Ada", "Bob", "Ü\U0001f600"}
        assert (await restored.show("/models/tiny/versions/1.0.0"))["id"]
        new = await restored.make("/tenants", {"name": "after"})
        assert new["name"] == "after"
        checked = await restored.http.post("/audit:verify")
        assert checked.json()["is_intact"], checked.text


async def test_changes_and_appends_go_on_while_a_backup_is_made(tmp_path: Path) -> None:
    """Whatever is written meanwhile, database and log of the copy agree."""
    settings = settings_of(tmp_path / "new")
    async with open_api(tmp_path / "old") as api:
        for number in range(40):
            await api.make("/tenants", {"name": f"before-{number}"})
        running = await api.make("/backups", {"passphrase": PASSPHRASE})
        made = 0
        while running["state"] == "running":
            await api.make("/tenants", {"name": f"during-{made}"})
            made += 1
            running = await api.show(f"/operations/{running['id']}")
        archive = api.folder.backups / running["result"]["file"]
        assert list(api.folder.path.glob(".backup-*")) == []
    assert made > 0

    manifest = await restore(archive, settings)

    findings = await verify_restored(settings, SystemClock(), manifest)
    assert [item.says for item in findings if not item.is_good] == []


async def test_what_no_ledger_has_read_is_read_from_the_copys_spool(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "new")
    async with open_api(tmp_path / "old") as api:
        tenant = await api.show("/tenants/default")
        folder = api.folder.spool / "gateway-0"
        with open_spool(folder, segment_bytes=1 << 20, reserve_bytes=16_384, sync="none") as spool:
            for number in range(5):
                spool.append(
                    encode_frame(end(f"call_{number}", "Ada", tenant["id"], tenant["project_id"]))
                )
            archive, _ = await back_up(api, passphrase=PASSPHRASE)

    await restore(archive, settings)

    names = {path.name for path in (tmp_path / "new" / "spool" / "gateway-0").iterdir()}
    assert not {"lock", "reserve"} & names
    async with open_there(settings) as restored:
        items: list[dict[str, Any]] = []
        async with asyncio.timeout(10):
            while len(items) < 5:
                items = (await restored.show("/traffic", after=0))["items"]
    assert [item["call_id"] for item in items] == [f"call_{number}" for number in range(5)]


async def test_without_keys_a_backup_opens_nothing_and_says_so_when_restored(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path / "new")
    async with open_api(tmp_path / "old") as api:
        await put_users(api, "Ada Lovelace")
        archive, made = await back_up(api)
        secrets = [path.read_bytes() for path in api.folder.keys.glob("*.key")]
    content = archive.read_bytes()
    assert made["has_keys"] is False
    assert not [key for key in [*secrets, b"plt_admin_", b"Ada Lovelace"] if key in content]
    with pytest.raises(PilotageError, match="no keys"):
        await restore(archive, settings)

    manifest = await restore(archive, settings, passphrase="")

    findings = await verify_restored(settings, SystemClock(), manifest)
    assert all(item.is_good for item in findings)
    assert "not compared with the database" in findings[-1].says
    with pytest.raises(PilotageError, match="root keys are missing"):
        async with open_there(settings):
            pass


async def test_files_of_somebody_else_are_left_out_and_the_rest_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = ("checkpoints/my note (1).txt", "audit/\udcff", "keys/old (1).pub")
    async with open_api(tmp_path / "old") as api:
        for name in strange:
            (api.folder.path / name).write_text("x")
        archive, _ = await back_up(api)

    manifest = verify_archive(archive)
    assert [name for name in manifest.files if "note" in name or "old" in name] == []
    assert "my note (1).txt' is no file of pilotage" in caplog.text
    assert caplog.text.count("is no file of pilotage") == len(strange)
    await restore(archive, settings_of(tmp_path / "new"), "")


def test_no_archive_is_written_that_no_reader_takes(tmp_path: Path) -> None:
    with (
        ArchiveWriter(tmp_path / "a.tar") as archive,
        pytest.raises(ValueError, match="no name that a backup has"),
    ):
        archive.add_bytes("audit/../evil", b"")


async def test_keys_are_backed_up_without_credentials_that_are_kept_elsewhere(
    tmp_path: Path,
) -> None:
    async with open_api(tmp_path / "old") as api:
        api.folder.credentials.rename(tmp_path / "elsewhere")
        archive, made = await back_up(api, passphrase=PASSPHRASE)
        api.folder.root_keys.rename(tmp_path / "root.key")
        ended = await wait(api, await api.make("/backups", {"passphrase": PASSPHRASE}))

    assert made["has_keys"] is True
    assert ended["error"]["detail"].endswith("root.key is not there.")
    await restore(archive, settings_of(tmp_path / "new"))
    assert (tmp_path / "new" / "keys" / "root.key").exists()
    assert not (tmp_path / "new" / "credentials.toml").exists()


async def test_a_passphrase_is_long_and_a_wrong_one_puts_nothing_back(tmp_path: Path) -> None:
    async with open_api(tmp_path / "old") as api:
        ended = await wait(api, await api.make("/backups", {"passphrase": "short"}))
        assert ended["error"]["code"] == "invalid_request"
        archive, _ = await back_up(api, passphrase=PASSPHRASE)

    with pytest.raises(PilotageError, match="does not open the keys"):
        await restore(archive, settings_of(tmp_path / "new"), "another passphrase")

    assert {path.name for path in tmp_path.iterdir()} == {"old"}


async def test_models_can_be_left_out(tmp_path: Path, tiny_gguf: Path) -> None:
    async with open_api(tmp_path / "old") as api:
        await furnish(api, tiny_gguf)
        archive, made = await back_up(api, exclude_models=True, passphrase=PASSPHRASE)

    manifest = verify_archive(archive)
    assert made["has_models"] is manifest.has_models is False
    assert not [name for name in manifest.files if name.startswith("blobs/")]
    assert archive.stat().st_size < 8 << 20


async def test_a_cancelled_backup_leaves_nothing(tmp_path: Path) -> None:
    async with open_api(tmp_path / "old") as api:
        big = api.folder.blobs / "ab" / ("ab" * 32)
        big.parent.mkdir()
        with big.open("wb") as file:
            file.truncate(1 << 30)
        started = await api.make("/backups", {})
        async with asyncio.timeout(20):
            shown = started
            while "blobs" not in shown["phase"]:
                shown = await api.show(f"/operations/{started['id']}")
        stopped = await api.http.post(f"/operations/{started['id']}:cancel")
        assert stopped.json()["state"] == "cancelled"
        assert [path.name for path in api.folder.backups.iterdir()] == []
        assert list(api.folder.path.glob(".backup-*")) == []


async def test_only_an_empty_place_is_restored_into(tmp_path: Path, make_url: MakeUrl) -> None:
    async with open_api(tmp_path / "old") as api:
        archive, _ = await back_up(api)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    url = make_url("postgres")
    async with open_api(tmp_path / "other", url):
        pass

    for settings, why in (
        (settings_of(tmp_path / "taken"), "taken is not empty"),
        (settings_of(tmp_path / "new", url), "database is not empty"),
    ):
        with pytest.raises(PilotageError, match=why) as refused:
            await restore(archive, settings, "")
        assert refused.value.code == "conflict"
    assert {path.name for path in tmp_path.iterdir()} == {"old", "taken", "other"}
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]


async def test_an_empty_folder_is_filled_and_stays_the_one_it_is(
    tmp_path: Path, small_archive: Path
) -> None:
    """It may be a mount point, with what a new file system has, or what a killed restore left."""
    target = tmp_path / "mounted"
    (target / "lost+found").mkdir(parents=True)
    (target / ".restoring" / "audit").mkdir(parents=True)
    number = target.stat().st_ino
    with pytest.raises(PilotageError, match="was not finished"):
        DataFolder(target).prepare()

    manifest = await restore(small_archive, settings_of(target), "")

    assert target.stat().st_ino == number
    assert {"lost+found", "audit", "pilotage.db"} <= {path.name for path in target.iterdir()}
    assert not (target / ".restoring").exists()
    findings = await verify_restored(settings_of(target), SystemClock(), manifest)
    assert all(item.is_good for item in findings), findings


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_restore_that_fails_at_its_end_leaves_nothing_anywhere(
    tmp_path: Path, small_archive: Path, make_url: MakeUrl, kind: str, is_there: bool
) -> None:
    target = tmp_path / "in" / "new"
    (target if is_there else target.parent).mkdir(parents=True)
    settings = settings_of(target, make_url(kind))

    class Disturbed(Progress):
        """Somebody puts a file where the audit log is to be."""

        def __call__(self, phase: str, done: int = 0, total: int = -1) -> None:
            if phase == "waiting for the disk":
                (target / "audit").mkdir(parents=True)
                (target / "audit" / "mine").touch()

    with pytest.raises(PilotageError, match="cannot be put into") as refused:
        await restore_backup(small_archive, settings, SystemClock(), "", Disturbed())

    assert refused.value.code == "unavailable"
    assert {path.name for path in target.parent.iterdir()} == {"new"}
    assert [path.name for path in target.rglob("*")] == ["audit", "mine"]
    if kind == "postgres":
        db = open_database(settings, DataFolder(target), SystemClock())
        assert await reflect_tables(db) == {}
        await db.close()


Change = Callable[[dict[str, bytes]], None]


def rewrite(archive: Path, target: Path, change: Change) -> Path:
    """Write an archive again with other files in it."""
    with tarfile.open(archive) as old:
        files = {head.name: old.extractfile(head).read() for head in old}  # type: ignore[union-attr]
    change(files)
    with tarfile.open(target, "w") as new:
        for name, content in files.items():
            head = tarfile.TarInfo(name)
            head.size = len(content)
            new.addfile(head, io.BytesIO(content))
    return target


def change_manifest(**values: object) -> Change:
    def change(files: dict[str, bytes]) -> None:
        files[MANIFEST] = msgspec.json.encode(msgspec.json.decode(files[MANIFEST]) | values)

    return change


def add_hostile(name: str) -> Change:
    """Add a file with a name of its own, properly listed."""

    def change(files: dict[str, bytes]) -> None:
        manifest = msgspec.json.decode(files.pop(MANIFEST))
        files[name] = b"evil"
        manifest["files"][name] = {"size": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
        files[MANIFEST] = msgspec.json.encode(manifest)

    return change


def alter(prefix: str) -> Change:
    def change(files: dict[str, bytes]) -> None:
        name = next(name for name in files if name.startswith(prefix))
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])

    return change


def drop(prefix: str) -> Change:
    def change(files: dict[str, bytes]) -> None:
        del files[next(name for name in files if name.startswith(prefix))]

    return change


@pytest.fixture(scope="module")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup of a fresh installation."""

    async def make() -> Path:
        async with open_api(tmp_path_factory.mktemp("small") / "data") as api:
            archive, _ = await back_up(api)
        return archive

    return asyncio.run(make())


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (alter("database/revision"), "invalid_backup", "database/revision/000000 is not what"),
        (alter("audit/"), "invalid_backup", "audit/.* is not what"),
        (drop("database/tenant"), "invalid_backup", "database/tenant/000000 is missing"),
        (drop(MANIFEST), "invalid_backup", "no manifest"),
        (change_manifest(files={}), "invalid_backup", "not in its manifest"),
        (change_manifest(schema="9999"), "schema_too_new", "9999"),
        (change_manifest(format=2), "invalid_backup", "format is 2"),
        (change_manifest(tables={"tenant": 7}), "invalid_backup", "not the rows it says"),
        (add_hostile("../evil"), "invalid_backup", "no name"),
        (add_hostile("/tmp/evil"), "invalid_backup", "no name"),
        (add_hostile("audit/../../evil"), "invalid_backup", "no name"),
        (add_hostile("blobs/./evil"), "invalid_backup", "no name"),
        (add_hostile("keys/evil"), "invalid_backup", "no name"),
        (add_hostile("public/..hidden"), "invalid_backup", "no name"),
        (add_hostile("database/sqlite_master/000000"), "invalid_backup", "behind the files"),
    ],
)
async def test_an_archive_that_was_changed_is_refused_and_nothing_is_put_anywhere(
    tmp_path: Path, small_archive: Path, change: Change, code: str, why: str
) -> None:
    (tmp_path / "in").mkdir()
    hostile = rewrite(small_archive, tmp_path / "hostile.tar", change)

    with pytest.raises(PilotageError, match=why) as refused:
        await restore(hostile, settings_of(tmp_path / "in" / "new"), "")

    assert refused.value.code == code
    assert list((tmp_path / "in").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"in", "hostile.tar"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]
)
async def test_only_plain_files_are_taken(tmp_path: Path, small_archive: Path, kind: bytes) -> None:
    hostile = tmp_path / "hostile.tar"
    with tarfile.open(hostile, "w") as archive:
        head = tarfile.TarInfo("audit/link")
        head.type, head.linkname = kind, "/etc/passwd"
        archive.addfile(head)

    with pytest.raises(PilotageError, match="no plain file"):
        verify_archive(hostile)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_an_archive_that_breaks_off_is_refused(
    tmp_path: Path, small_archive: Path, share: float
) -> None:
    content = small_archive.read_bytes()
    broken = tmp_path / "broken.tar"
    end_of_manifest = content.rindex(b"}")  # behind it is nothing but padding
    broken.write_bytes(content[: int(end_of_manifest * share)])

    with pytest.raises(PilotageError) as refused:
        verify_archive(broken)

    assert refused.value.code == "invalid_backup"


async def test_a_copy_behind_a_checkpoint_kept_elsewhere_is_found_out(tmp_path: Path) -> None:
    async with open_api(tmp_path / "old") as api:
        archive, _ = await back_up(api, passphrase=PASSPHRASE)
        await api.make("/tenants", {"name": "later"})
    outside = tmp_path / "elsewhere"
    (tmp_path / "old" / "checkpoints").rename(outside)
    settings = msgspec.structs.replace(
        settings_of(tmp_path / "new"),
        audit=msgspec.structs.replace(Settings().audit, checkpoints=str(outside)),
    )

    manifest = await restore(archive, settings)

    findings = await verify_restored(settings, SystemClock(), manifest)
    bad = [item.says for item in findings if not item.is_good]
    assert len(bad) == 1
    assert "checkpoint" in bad[0]
