"""Migrations on both databases: from nothing to head, never from the future, with a copy."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pilotage.core.errors import PilotageError
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import PLAIN_ROUTING
from pilotage.identity.service import IdentityService
from pilotage.identity.types import ADMIN_PREFIX, Role, TenantSettings
from pilotage.kit.clock import ManualClock
from pilotage.kit.config import DatabaseSettings, Settings
from pilotage.kit.crypto import digest_secret, make_secret
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Actor, Database, open_postgres, open_sqlite
from pilotage.migrations import run
from pilotage.migrations.run import (
    HEAD,
    VERSIONS,
    find_version,
    make_config,
    migrate,
    prepare_schema,
)
from pilotage.migrations.tables import get_metadata
from pilotage.registry.rules import check_version, list_words
from pilotage.registry.service import RegistryService
from pilotage.registry.types import VersionDetails
from postgres_server import PostgresServer

NEXT = '''"""One column more."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    """Add a column."""
    op.add_column("project", sa.Column("colour", sa.Text()))
'''


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data").prepare()


@pytest.fixture
async def empty(
    postgres_or_none: PostgresServer | None, folder: DataFolder, clock: ManualClock
) -> AsyncIterator[Database]:
    """Return a database of each kind with nothing in it."""
    if postgres_or_none is None:
        opened = open_sqlite(folder.database, clock)
    else:
        opened = open_postgres(postgres_or_none.make_empty(), "", clock)
    yield opened
    await opened.close()


def settings_of(db: Database) -> Settings:
    url = "sqlite" if db.dialect == "sqlite" else "postgresql:///test"
    return Settings(database=DatabaseSettings(url=url))


async def list_differences(db: Database) -> list[object]:
    """Return what alembic would change to make the database what the stores declare."""

    def compare(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(
            MigrationContext.configure(connection, opts=options), get_metadata()
        )
        return list(found)

    async with db.engine.connect() as conn:
        return await conn.run_sync(compare)


async def list_tables(db: Database) -> set[str]:
    async with db.engine.connect() as conn:
        return set(await conn.run_sync(lambda sync: sa.inspect(sync).get_table_names()))


async def execute(db: Database, statement: str) -> None:
    async with db.engine.begin() as conn:
        await conn.execute(sa.text(statement))


async def test_an_empty_database_becomes_what_the_stores_declare(empty: Database) -> None:
    assert await find_version(empty) is None

    assert await migrate(empty) == HEAD

    assert await find_version(empty) == HEAD
    assert await list_differences(empty) == []
    assert await list_tables(empty) == {*get_metadata().tables, "alembic_version"}


async def test_migrating_again_changes_nothing(empty: Database, clock: ManualClock) -> None:
    await migrate(empty)
    async with empty.write(SYSTEM) as tx:
        await IdentityService(clock).create_project(tx, "kept")

    assert await migrate(empty) == HEAD

    async with empty.read(SYSTEM) as tx:
        assert (await IdentityService(clock).get_project(tx, "kept")).name == "kept"


FOUNDED = """
    INSERT INTO project (id, rev, name, created_at_us) VALUES ('prj_1', 1, 'default', 1);
    INSERT INTO tenant (id, rev, project_id, name, created_at_us)
        VALUES ('ten_1', 1, 'prj_1', 'default', 1);
    INSERT INTO api_key (id, rev, project_id, tenant_id, name, digest, hint, created_at_us,
        changed_seq) VALUES ('key_1', 1, 'prj_1', 'ten_1', 'first', 'digest', 'abcd', 1, 1);
    INSERT INTO endpoint (id, rev, project_id, name, description, max_output_tokens, salt, split,
        created_at_us) VALUES ('end_1', 1, 'prj_1', 'chat', '', 0, 's', '{"dep_1": 10000}', 1);
    INSERT INTO deployment (id, rev, project_id, endpoint_id, version_id, model, artifact_sha256,
        engine, context_tokens, created_at_us)
        VALUES ('dep_1', 1, 'prj_1', 'end_1', 'ver_1', 'tiny@1.0.0', 'ab', 'llamacpp', 0, 1);
    INSERT INTO model (id, rev, project_id, name, description, created_at_us)
        VALUES ('mdl_1', 1, 'prj_1', 'tiny', '', 1);
    INSERT INTO artifact (sha256, project_id, size_bytes, format, info, created_at_us)
        VALUES ('ab', 'prj_1', 1, 'gguf', '{}', 1);
    INSERT INTO model_version (id, rev, project_id, model_id, version, artifact_sha256, source,
        license, description, context_tokens, created_at_us, created_by, deleted_at_us) VALUES
        ('ver_1', 1, 'prj_1', 'mdl_1', '1.9.0', 'ab', 'manual', 'MIT', 'Small 1', 9, 5, 'u', NULL),
        ('ver_2', 1, 'prj_1', 'mdl_1', '1.10.0', 'ab', 'package', '', '', 9, 6, 'u', NULL),
        ('ver_3', 1, 'prj_1', 'mdl_1', '2.0.0-rc.1+b', 'ab', 'lab 7', '', '', 9, 7, 'u', NULL),
        ('ver_4', 2, 'prj_1', 'mdl_1', '1.9.0~ver_4', 'ab', 'manual', '', '', 9, 8, 'u', 9);
"""


async def test_what_the_founding_schema_held_is_what_it_was(
    empty: Database, clock: ManualClock
) -> None:
    async with empty.engine.begin() as conn:
        await conn.run_sync(lambda sync: command.upgrade(make_config(sync), VERSIONS[0]))
    for statement in FOUNDED.split(";")[:-1]:
        await execute(empty, statement)

    assert await migrate(empty) == HEAD

    identity = IdentityService(clock)
    endpoints = EndpointService(clock, identity, RegistryService(clock), AbsentFleet())
    async with empty.read(SYSTEM) as tx:
        (tenant,) = await identity.list_tenants(tx)
        (key,) = await identity.list_keys(tx)
        (endpoint,) = await endpoints.list_endpoints(tx)
        (deployment,) = await endpoints.list_deployments(tx)
        assert list(await endpoints.upstreams.list_upstreams(tx)) == []
    assert {name: getattr(tenant, name) for name in TenantSettings.__dataclass_fields__} == {
        name: getattr(TenantSettings(), name) for name in TenantSettings.__dataclass_fields__
    }
    assert (key.hint, key.may_name_users) == ("abcd", False)
    assert (endpoint.split, endpoint.routing, endpoint.regions) == (
        {"dep_1": 10_000},
        PLAIN_ROUTING,
        (),
    )
    assert (deployment.model, deployment.upstream_id, deployment.upstream_model) == (
        "tiny@1.0.0",
        "",
        "",
    )


async def test_versions_of_the_founding_schema_get_their_order_their_sources_and_their_words(
    empty: Database, clock: ManualClock
) -> None:
    async with empty.engine.begin() as conn:
        await conn.run_sync(lambda sync: command.upgrade(make_config(sync), VERSIONS[2]))
    for statement in FOUNDED.split(";")[:-1]:
        await execute(empty, statement)

    await migrate(empty)

    registry = RegistryService(clock)
    in_project = Actor(principal_id="u", project_id="prj_1")
    async with empty.write(in_project) as tx:
        found = await registry.list_versions(tx, "tiny")
        assert [(item.id, item.version, item.source) for item in found] == [
            ("ver_1", "1.9.0", "manual"),
            ("ver_2", "1.10.0", "package"),
            ("ver_3", "2.0.0-rc.1+b", "custom"),
        ]
        assert found[2].custom_metadata == {"source": "lab 7"}
        assert {(item.stage, item.tags, item.rev) for item in found} == {("development", (), 1)}
        assert [item.updated_at_us for item in found] == [5, 6, 7]
        assert (await registry.get_version(tx, "tiny")).id == "ver_2"
        assert [item.semver_key for item in found] == [
            check_version(item.version).text_key() for item in found
        ]
        hosted = VersionDetails(base_model="gemini")  # without a file: the schema lets it
        made = await registry.create_version(tx, "tiny", "3.0.0", None, details=hosted)
    assert made.artifact_sha256 is None
    async with empty.engine.connect() as conn:
        words = await conn.execute(
            sa.text("SELECT word FROM version_word WHERE version_id = 'ver_1' ORDER BY word")
        )
        assert [row[0] for row in words] == list_words("tiny", "Small 1") == ["1", "small", "tiny"]
        gone = sa.text("SELECT version, is_release FROM model_version WHERE id = 'ver_4'")
        assert [tuple(row) for row in await conn.execute(gone)] == [("1.9.0", True)]


PEOPLE = """
    INSERT INTO principal (id, name, role, digest) VALUES ('usr_1', 'admin', 'admin', :admin);
    INSERT INTO principal (id, name, role, digest) VALUES ('gwy_2', 'paris', 'gateway', :paris);
    INSERT INTO principal (id, name, role, digest) VALUES ('gwy_3', 'rome', 'revoked', :rome);
    INSERT INTO revision (at_us, event, object_id, rev, actor, reason, after)
        VALUES (5, 'identity.gateway.created', 'gwy_3', 1, 'usr_1', '', '{}');
    INSERT INTO revision (at_us, event, object_id, rev, actor, reason, after)
        VALUES (7, 'identity.gateway.revoked', 'gwy_3', 2, 'usr_1', '', '{}')
"""


async def test_principals_keep_their_credentials_and_get_their_roles(
    empty: Database, clock: ManualClock
) -> None:
    before = VERSIONS[VERSIONS.index("0010") - 1]
    async with empty.engine.begin() as conn:
        await conn.run_sync(lambda sync: command.upgrade(make_config(sync), before))
    secrets = {name: make_secret(ADMIN_PREFIX) for name in ("admin", "paris", "rome")}
    for statement in PEOPLE.split(";"):
        named = {name: digest_secret(text) for name, text in secrets.items() if name in statement}
        async with empty.engine.begin() as conn:
            digests = {name: digest for name, digest in named.items() if f":{name}" in statement}
            await conn.execute(sa.text(statement), digests)

    await migrate(empty)

    identity = IdentityService(clock)
    async with empty.read(SYSTEM) as tx:
        found = {
            name: await identity.authenticate(tx, secrets[name]) for name in ("admin", "paris")
        }
        assert [found[name].name for name in found] == ["admin", "paris"]
        assert await identity.roles_of(tx, "usr_1", None) == {Role.ADMIN}
        assert await identity.roles_of(tx, "gwy_2", None) == {Role.GATEWAY}
        with pytest.raises(PilotageError) as refused:
            await identity.authenticate(tx, secrets["rome"])
        paris, rome = await identity.list_gateways(tx)
    assert refused.value.code == "invalid_credential"
    assert (identity.is_gateway(paris), paris.rev) == (True, 1)
    assert (rome.name, rome.rev, rome.created_at_us, rome.disabled_at_us) == ("rome", 2, 5, 7)
    async with empty.write(SYSTEM) as tx:
        revoked = await identity.revoke_gateway(tx, "paris")
        await identity.bootstrap(tx)
    assert revoked.rev == 2


async def test_a_difference_would_be_seen(empty: Database) -> None:
    await migrate(empty)
    await execute(empty, "ALTER TABLE project ADD COLUMN colour TEXT")

    assert "colour" in str(await list_differences(empty))


async def test_the_list_of_versions_is_that_of_the_scripts(empty: Database) -> None:
    def read(connection: sa.Connection) -> list[str]:
        scripts = ScriptDirectory.from_config(make_config(connection))
        return [script.revision for script in scripts.walk_revisions()][::-1]

    async with empty.engine.connect() as conn:
        assert tuple(await conn.run_sync(read)) == VERSIONS


async def test_a_schema_from_the_future_is_refused_and_left_alone(
    empty: Database, folder: DataFolder, clock: ManualClock
) -> None:
    await migrate(empty)
    await execute(empty, "UPDATE alembic_version SET version_num = '9999'")
    await execute(empty, "DROP TABLE kept_reply")
    before = await list_tables(empty)

    for attempt in (migrate(empty), prepare_schema(empty, settings_of(empty), folder, clock)):
        with pytest.raises(PilotageError) as refused:
            await attempt
        assert refused.value.code == "schema_too_new"
        assert "9999" in refused.value.detail
        assert "newer" in refused.value.hint

    assert await find_version(empty) == "9999"
    assert await list_tables(empty) == before
    assert list(folder.path.glob("*.bak")) == []


async def test_sqlite_migrates_itself_and_postgres_when_told(
    empty: Database, folder: DataFolder, clock: ManualClock
) -> None:
    preparing = prepare_schema(empty, settings_of(empty), folder, clock)
    if empty.dialect == "sqlite":
        await preparing
        assert await find_version(empty) == HEAD
        assert list(folder.path.glob("*.bak")) == []  # there was nothing to copy
    else:
        with pytest.raises(PilotageError) as refused:
            await preparing
        assert (refused.value.code, await list_tables(empty)) == ("conflict", set())
        assert f"needs {HEAD}" in refused.value.detail
        assert "pilotage migrate" in refused.value.hint
        await migrate(empty)

    await prepare_schema(empty, settings_of(empty), folder, clock)
    assert await list_differences(empty) == []


@pytest.fixture
def newer_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this the program of a version later: its scripts are ours and one more."""
    scripts = tmp_path / "migrations"
    shutil.copytree(Path(run.__file__).parent, scripts)
    (scripts / "versions" / "v9999_next.py").write_text(NEXT.format(head=HEAD))
    monkeypatch.setattr(run, "__file__", str(scripts / "run.py"))
    monkeypatch.setattr(run, "VERSIONS", (*VERSIONS, "9999"))
    monkeypatch.setattr(run, "HEAD", "9999")
    return scripts


async def test_a_copy_is_made_before_sqlite_is_migrated(
    folder: DataFolder, clock: ManualClock, request: pytest.FixtureRequest
) -> None:
    db = open_sqlite(folder.database, clock)
    await migrate(db)
    async with db.write(SYSTEM) as tx:
        made = await IdentityService(clock).create_project(tx, "in-the-log")
    assert Path(f"{folder.database}-wal").stat().st_size > 0  # the file alone would lack it
    request.getfixturevalue("newer_program")

    await prepare_schema(db, Settings(), folder, clock)
    version = await find_version(db)
    await db.close()

    (copy,) = folder.path.glob("*.bak")
    assert version == "9999"
    assert copy.name == f"pilotage.{HEAD}.{clock.now_us()}.bak"
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as old:
        assert old.execute("SELECT id FROM project").fetchall() == [(made.id,)]
        assert old.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        assert "colour" not in [row[1] for row in old.execute("PRAGMA table_info(project)")]
    with closing(sqlite3.connect(folder.database)) as new:
        assert new.execute("SELECT id, colour FROM project").fetchall() == [(made.id, None)]


async def test_a_migration_that_fails_changes_nothing(
    empty: Database, folder: DataFolder, clock: ManualClock, request: pytest.FixtureRequest
) -> None:
    await migrate(empty)
    scripts: Path = request.getfixturevalue("newer_program")
    with (scripts / "versions" / "v9999_next.py").open("a") as script:
        script.write('    op.execute("SELECT * FROM no_such_table")\n')

    with pytest.raises(sa.exc.DBAPIError, match="no_such_table"):
        await migrate(empty)

    assert await find_version(empty) == HEAD
    assert await list_differences(empty) == []
