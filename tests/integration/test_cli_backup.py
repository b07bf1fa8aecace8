"""Backup, restore, keys and erasure by command."""

from pathlib import Path

import pytest

from command_line import CommandLine

PASSPHRASE = "a long enough passphrase"


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def test_a_backup_goes_out_is_checked_and_comes_back(pilotage: CommandLine, tmp_path: Path) -> None:
    secret, shelf = tmp_path / "passphrase", tmp_path / "shelf"
    secret.write_text(PASSPHRASE + "\n")
    shelf.mkdir()
    pilotage.ok("tenants", "create", "acme")
    before = pilotage.ok("doctor", "--json").json

    made = pilotage.ok(
        "backup", str(shelf), "--with-keys", "--passphrase-file", str(secret), "--json"
    ).json
    checked = pilotage.ok("backup", "--verify", made["file"])
    restored = pilotage.ok(
        "restore", made["file"], "--into", str(tmp_path / "copy"), "--passphrase-file", str(secret)
    )

    assert [path.name for path in shelf.iterdir()] == [Path(made["file"]).name]
    assert "is whole" in checked.out
    assert "with keys" in checked.out
    assert "word for word" in restored.out
    copy = CommandLine(tmp_path, PILOTAGE_DATA_DIR=str(tmp_path / "copy"))
    assert "acme" in copy.ok("tenants", "list").out
    findings = {item["check"]: item for item in [*before, *pilotage.ok("doctor", "--json").json]}
    assert "0 hours ago" in findings["backup"]["detail"]
    (pilotage.data / "keys" / "root.key").chmod(0o644)
    told = {item["check"]: item for item in pilotage("doctor", "--json").json}
    assert told["root keys"]["hint"] == f"Run: chmod 600 {pilotage.data}/keys/root.key"


def test_what_cannot_be_is_one_clear_line(pilotage: CommandLine, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no archive")

    assert "Where to?" in pilotage("backup").err
    assert "in no folder" in pilotage("backup", str(tmp_path / "no" / "file")).err
    assert "there already" in pilotage("backup", str(broken)).err
    refused = pilotage("restore", str(broken), "--into", str(tmp_path / "copy"))
    assert (refused.code, "cannot be used" in refused.err) == (1, True)
    assert not (tmp_path / "copy").exists()


def test_keys_are_rotated_and_a_tenant_is_erased_by_whoever_may(pilotage: CommandLine) -> None:
    pilotage.ok("tenants", "create", "acme")

    rotated = pilotage.ok("secrets", "rotate", "--tenant", "acme", "--reason", "a drill")
    root = pilotage.ok("secrets", "rotate")
    listed = pilotage.ok("secrets", "list", "--json").json
    refused = pilotage("tenants", "erase", "acme", "--yes", "--reason", "asked")

    assert "Data key 2 of acme" in rotated.out
    assert "Root key 2 wraps 2 data keys" in root.out
    assert [(key["number"], key["root"]) for key in listed] == [(1, 2), (2, 2)]
    assert refused.code == 1
    assert "identity.tenants.erase" in refused.err
