"""Every command without a server: help, JSON, what it says of nothing, and of mistakes."""

import json
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import pytest

import pilotage as product
from command_line import CommandLine, Said, list_commands

PROGRAM = [sys.executable, "-m", "pilotage.cli.main"]
HEAVY = {"httpx", "sqlalchemy", "fastapi", "pydantic"}


COMMANDS = list_commands()


@pytest.fixture
def pilotage(tmp_path: Path, tiny_gguf: Path) -> CommandLine:
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")
    return CommandLine(tmp_path)


# help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, tmp_path: Path) -> None:
    said = CommandLine(tmp_path)(*command.split(), "--help")

    assert said.code == 0
    assert f"Usage: pilotage {command}" in said.out
    assert "Example" in said.out
    assert f": pilotage {command}" in said.out
    assert not (tmp_path / "data").exists()


def test_without_a_command_there_is_the_list_of_them(tmp_path: Path) -> None:
    alone, helped = CommandLine(tmp_path)(), CommandLine(tmp_path)("--help")
    group = CommandLine(tmp_path)("endpoints")

    assert (alone.code, helped.code, group.code) == (2, 0, 2)
    assert alone.out == helped.out
    for command in COMMANDS:
        assert f" {command.partition(' ')[0]} " in helped.out
    assert " split " in group.out


@pytest.mark.parametrize("words", [["--help"], ["version"]])
def test_help_and_version_load_nothing_heavy(words: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from pilotage.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    sys.stderr.write(json.dumps([end.code or 0, sorted(sys.modules)]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(run.stderr)

    assert code == 0
    assert run.stdout
    assert "pilotage.cli.main" in modules
    assert HEAVY.isdisjoint(modules)


# lists of nothing


LISTS = {
    "models list": "pilotage models pull",
    "datasets list": "pilotage datasets push",
    "endpoints list": "pilotage endpoints create",
    "prices list": "pilotage prices set",
    "limits list": "pilotage limits set",
    "operations list": "pilotage models pull",
    "usage": "pilotage chat",
    "metrics": "pilotage chat",
    "traffic tail --no-follow": "pilotage chat",
    "tenants list --project empty": "pilotage tenants create",
    "upstreams list": "pilotage upstreams create",
    "keys list --project empty": "pilotage keys create",
    "gateways list": "pilotage gateways create",
    "audit list --event nothing.": "pilotage audit list --all",
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    made = CommandLine(tmp_path_factory.mktemp("fresh"))
    made.ok("projects", "create", "empty")
    return made


@pytest.mark.parametrize("words", LISTS)
def test_a_list_of_nothing_says_what_to_do(fresh: CommandLine, words: str) -> None:
    said = fresh.ok(*words.split())

    assert LISTS[words] in said.out
    assert len(said.out.splitlines()) == 1


# single commands


def test_the_text_of_a_key_is_shown_once(pilotage: CommandLine) -> None:
    pilotage.ok("tenants", "create", "acme")
    made = pilotage.ok("keys", "create", "--tenant", "acme", "--name", "ci", "--expires", "30d")
    (secret,) = made.out.splitlines()
    (listed,) = pilotage.json("keys", "list", "--tenant", "acme")

    assert secret.startswith("plt_live_")
    assert secret not in made.err
    assert "shown this once" in made.err
    everything = [
        pilotage.ok(*words.split()).out
        for words in ("keys list", "keys list --json", "audit list --all --json")
    ]
    assert not any(secret in text for text in everything)
    assert (listed["name"], listed["state"], listed["hint"]) == ("ci", "active", secret[-4:])
    assert listed["expires_at"] is not None
    assert "acme" in everything[0]
    revoked = pilotage.ok("keys", "revoke", listed["id"], "--reason", "leaked: größer")
    assert "is revoked" in revoked.out
    (entry,) = pilotage.json("audit", "list", "-n", "1")
    assert (entry["event"], entry["reason"]) == ("identity.key.revoked", "leaked: größer")


def test_a_model_file_is_added_under_names_and_numbers_of_its_own(pilotage: CommandLine) -> None:
    first = pilotage.json("models", "add", "tiny.gguf")
    again = pilotage.json("models", "add", "tiny.gguf")
    named = pilotage.json("models", "add", "tiny.gguf", "--name", "chat", "--version", "2.0.0-rc.1")
    (pilotage.folder / "other.gguf").write_bytes(
        (pilotage.folder / "tiny.gguf").read_bytes() + bytes(32)
    )
    refused = pilotage("models", "add", "other.gguf", "--name", "chat", "--version", "2.0.0-rc.1")

    assert (first["version"], first["is_new"]) == ("1.0.0", True)
    assert again == first | {"is_new": False}
    assert (named["ref"], named["artifact_sha256"]) == ("chat@2.0.0-rc.1", first["artifact_sha256"])
    assert (refused.code, "Choose a higher version" in refused.err) == (1, True)
    assert first["model"] in pilotage.ok("models", "list").out
    assert "llama" in pilotage.ok("models", "show", "chat@2.0.0-rc.1").out


def test_traffic_is_moved_and_what_is_in_the_way_is_told(pilotage: CommandLine) -> None:
    for version in ("1.0.0", "1.1.0"):
        pilotage.ok("models", "add", "tiny.gguf", "--name", "tiny", "--version", version)
    pilotage.ok("endpoints", "create", "team/chat", "--description", "a [bold] one")
    first = pilotage.ok("endpoints", "deploy", "team/chat", "tiny@1.0.0")
    pilotage.ok("prices", "set", "tiny", "--free")
    second = pilotage.ok("endpoints", "deploy", "team/chat", "tiny@1.1.0")
    split = pilotage.ok("endpoints", "split", "team/chat", "1.0.0=90", "tiny@1.1.0=10%")

    assert "no price for tiny@1.0.0" in first.err
    assert "pilotage prices set tiny --input USD --output USD" in first.err
    assert second.err.startswith("decision dec_")
    assert "tiny@1.0.0 90 %" in split.out
    assert "tiny@1.1.0 10 %" in split.out
    assert "a [bold] one" in pilotage.ok("endpoints", "show", "team/chat").out
    kept = pilotage("endpoints", "undeploy", "team/chat", "tiny@1.0.0")
    assert (kept.code, "takes traffic" in kept.err) == (1, True)
    sum_wrong = pilotage("endpoints", "split", "team/chat", "1.0.0=90", "1.1.0=20")
    assert (sum_wrong.code, "The shares sum to 110 %" in sum_wrong.err) == (1, True)
    pilotage.ok("endpoints", "split", "team/chat", "1.1.0=100")
    pilotage.ok("endpoints", "undeploy", "team/chat", "tiny@1.0.0")
    assert "tiny@1.0.0" not in pilotage.ok("endpoints", "list").out


def test_an_altered_log_is_an_error(pilotage: CommandLine) -> None:
    pilotage.ok("tenants", "create", "acme")
    intact = pilotage.ok("audit", "verify")
    with closing(sqlite3.connect(pilotage.data / "pilotage.db")) as db, db:
        db.execute("UPDATE revision SET actor = 'nobody' WHERE seq = 2")
    altered = pilotage("audit", "verify")

    assert "intact. Root: " in intact.out
    assert altered.code == 1
    assert "BAD  revision 2 is not in the database what it is in the log" in altered.out
    assert not pilotage("audit", "verify", "--json").json["is_intact"]


def test_a_log_that_is_not_what_was_signed_stops_everything_but_its_check(
    pilotage: CommandLine,
) -> None:
    pilotage.ok("tenants", "create", "acme")
    (wal,) = (pilotage.data / "audit" / "wal").iterdir()
    data = wal.read_bytes()
    end = 6 + int.from_bytes(data[:2], "big")
    forged = data[6:end].replace(b"founding", b"foundinG")
    wal.write_bytes(data[:2] + zlib.crc32(forged).to_bytes(4, "big") + forged + data[end:])

    refused = pilotage("tenants", "list")
    checked = pilotage("audit", "verify")

    assert (refused.code, checked.code) == (1, 1)
    assert "its entries are not those that its checkpoint signs" in refused.err
    assert "pilotage audit verify" in refused.err
    bad, *good = [line for line in checked.out.splitlines() if line[:3] in ("BAD", "ok ")]
    assert "not those that its checkpoint signs" in bad
    assert "entries hash to the root of the signed checkpoint" in good[0]  # the published ones
    assert "entries, NOT what it was" in checked.out


def test_a_proof_is_checked_without_an_installation(pilotage: CommandLine, tmp_path: Path) -> None:
    pilotage.ok("tenants", "create", "acme")
    (entry,) = pilotage.json("audit", "list", "--event", "identity.tenant", "-n", "1")
    pilotage.ok("audit", "prove", str(entry["position"]), "--out", "proof.json")
    pilotage.ok("audit", "checkpoint", "--out", "kept.checkpoint")
    key = (pilotage.data / "keys" / "audit.pub").read_text()
    elsewhere = CommandLine(tmp_path / "elsewhere", PILOTAGE_DATA_DIR=str(tmp_path / "nothing"))
    elsewhere.folder.mkdir()
    proof = (pilotage.folder / "proof.json").read_text()
    (elsewhere.folder / "proof.json").write_text(proof)
    (elsewhere.folder / "forged.json").write_text(proof.replace("acme", "evil"))

    holds = elsewhere.ok("audit", "check", "proof.json", "--key", key)
    forged = elsewhere("audit", "check", "forged.json", "--json")

    assert '"name":"acme"' in "".join(holds.out.split())
    assert (forged.code, forged.json["holds"]) == (1, False)
    assert elsewhere("audit", "check", "proof.json", "--key", "00" * 32).code == 1
    assert not (tmp_path / "nothing").exists()
    assert "pilotage.audit/" in (pilotage.folder / "kept.checkpoint").read_text()
    assert pilotage.ok("audit", "show", str(entry["position"])).out.startswith("{")


def test_entries_are_searched_exported_and_proved_by_id(
    pilotage: CommandLine, tmp_path: Path
) -> None:
    pilotage.ok("tenants", "create", "acme", "--reason", "incident 12")
    pilotage.ok("audit", "checkpoint", "--out", "kept.checkpoint")
    kept = pilotage.ok("audit", "verify", "--checkpoint", "kept.checkpoint").out
    (entry,) = pilotage.json("audit", "search", "incident 12", "--event", "identity.tenant")
    pilotage.ok("audit", "export", "plain.jsonl")
    pilotage.ok("audit", "export", "proofs.jsonl", "--proofs")
    pilotage.ok("audit", "prove", entry["object_id"], "--out", "object.json")
    pilotage.ok("audit", "prove", str(entry["revision_seq"]), "--revision", "--out", "rev.json")
    altered = (pilotage.folder / "proofs.jsonl").read_text().replace("acme", "evil")
    (pilotage.folder / "altered.jsonl").write_text(altered)
    lines = (pilotage.folder / "plain.jsonl").read_text().splitlines()

    assert "kept.checkpoint: the first" in kept
    assert [json.loads(line)["position"] for line in lines] == list(range(len(lines)))
    assert (
        f"{len(lines)} entries are in the log" in pilotage.ok("audit", "check", "proofs.jsonl").out
    )
    assert (pilotage.folder / "object.json").read_text() == (
        pilotage.folder / "rev.json"
    ).read_text()
    assert "does NOT hold" in pilotage("audit", "check", "altered.jsonl").out
    assert pilotage("audit", "prove", "dec_unknown").code == 1


def test_two_commands_at_once_wait_for_each_other(pilotage: CommandLine) -> None:
    running = [
        subprocess.Popen(
            [*PROGRAM, "tenants", "create", name],
            env=pilotage.whole_environment,
            cwd=pilotage.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    said = [process.communicate(timeout=60)[0] for process in running]

    assert [process.returncode for process in running] == [0, 0, 0], said
    names = {tenant["name"] for tenant in pilotage.json("tenants", "list")}
    assert names == {"default", "one", "two", "three"}


# doctor


def test_the_doctor_makes_nothing_and_names_the_next_step(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)

    said = pilotage.ok("doctor")

    assert "warning  data folder: " in said.out
    assert "Run: pilotage init" in said.out
    assert not pilotage.data.exists()


@pytest.mark.parametrize(
    ("folder", "state", "said"),
    [
        ("", "warning", "disk of the log itself"),
        ("/nowhere/at/all", "warning", "no /nowhere/at/all"),
        ("/dev/shm", "ok", "put into /dev/shm"),
    ],
)
def test_the_doctor_wants_checkpoints_on_another_disk(
    tmp_path: Path, folder: str, state: str, said: str
) -> None:
    pilotage = CommandLine(tmp_path)
    pilotage.ok("tenants", "create", "acme")
    asked = CommandLine(tmp_path, PILOTAGE_AUDIT_CHECKPOINTS=folder)
    found = {finding["check"]: finding for finding in asked("doctor", "--json").json}

    assert found["audit checkpoints"]["state"] == state
    assert said in found["audit checkpoints"]["detail"]


def test_the_doctor_finds_what_is_wrong(pilotage: CommandLine) -> None:
    pilotage.ok("endpoints", "create", "chat")
    (pilotage.data / "credentials.toml").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pilotage.environment["PILOTAGE_CONTROL_PORT"] = str(taken.getsockname()[1])
        said = pilotage("doctor", "--json")
    found = {item["check"]: item for item in said.json}

    assert said.code == 1
    assert {name for name, item in found.items() if item["state"] == "problem"} == {
        "credentials",
        "control port",
        "endpoint chat",
    }
    assert found["credentials"]["hint"].startswith("Run: chmod 600 ")
    assert "PILOTAGE_CONTROL_PORT" in found["control port"]["hint"]
    assert found["endpoint chat"]["detail"] == "not published: no deployment takes traffic"
    assert found["endpoint chat"]["hint"] == "Run: pilotage endpoints deploy chat MODEL@VERSION"


def test_the_doctor_sees_wrong_settings_and_a_foreign_database(pilotage: CommandLine) -> None:
    pilotage.ok("projects", "list")
    (pilotage.data / "pilotage.db").write_bytes(b"no database at all" * 100)
    broken = pilotage("doctor")
    pilotage.environment["PILOTAGE_GATEWAY_PROT"] = "1"
    misspelt = pilotage("doctor")

    assert (broken.code, misspelt.code) == (1, 1)
    assert "problem  database: It cannot be reached: file is not a database" in broken.out
    assert "problem  settings: PILOTAGE_GATEWAY_PROT is not a setting." in misspelt.out
    assert "-> Did you mean PILOTAGE_GATEWAY_PORT?" in misspelt.out


# mistakes


def is_one_clear_line(said: Said) -> bool:
    lines = said.err.splitlines()
    return 1 <= len(lines) <= 2 and lines[0].startswith("error: ") and said.out == ""


BAD_SETTINGS = {
    "unknown key": ("gateway: {prot: 1}", {}, "gateway.prot is not a setting"),
    "wrong type": ("engine: {slots: many}", {}, "pilotage.yaml: engine.slots: Expected 'int'"),
    "no YAML": ("gateway: [", {}, "pilotage.yaml is not valid YAML at line"),
    "unknown variable": ("", {"PILOTAGE_DATA_DRI": "x"}, "PILOTAGE_DATA_DRI is not a setting"),
    "wrong variable": ("", {"PILOTAGE_CONTROL_PORT": "x"}, "PILOTAGE_CONTROL_PORT: control.port"),
    "no folder": ("", {"PILOTAGE_DATA_DIR": "/dev/null/x"}, "/dev/null/x"),
}


@pytest.mark.parametrize("mistake", BAD_SETTINGS)
@pytest.mark.parametrize("words", ["models list", "up --bare", "apply -f release.yaml"])
def test_wrong_settings_are_one_line_and_code_2(mistake: str, words: str, tmp_path: Path) -> None:
    file, variables, problem = BAD_SETTINGS[mistake]
    (tmp_path / "pilotage.yaml").write_text(file)
    (tmp_path / "release.yaml").write_text("{kind: Tenant, name: x}")

    said = CommandLine(tmp_path, **variables)(*words.split())

    assert is_one_clear_line(said), said
    assert said.code == 2
    assert problem in said.err
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken_is_one_line_and_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        pilotage = CommandLine(tmp_path, PILOTAGE_GATEWAY_PORT=port)
        run = subprocess.run(
            [*PROGRAM, "up", "--bare"],
            env=pilotage.whole_environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    said = Said(run.returncode, run.stdout, run.stderr)

    assert is_one_clear_line(said), said
    assert said.code == 2
    assert f"gateway.port: 127.0.0.1:{port} cannot be used" in said.err
    assert "PILOTAGE_GATEWAY_PORT" in said.err


MISUSES = {
    "modles list": "No such command 'modles'",
    "models lits": "No such command 'lits'",
    "models list --jsno": "No such option: --jsno",
    "models show": "Missing argument 'NAME[@VERSION]'",
    "endpoints create x --max-output-tokens many": "--max-output-tokens",
    "endpoints split x 1.0.0": "'1.0.0' is no share",
    "endpoints split x 1.0.0=50 1.0.0=50": "'1.0.0' is named twice",
    "models add gone.gguf": "gone.gguf is not a file",
    "models add tiny.gguf --version 1": "--version: not a semantic version: '1'",
    "prices set tiny --input 1": "A price needs --input and --output",
    "limits set x --usd 500": "usd: write AMOUNT/PERIOD",
    "limits set x --usd 500/week": "usd: write AMOUNT/PERIOD",
    "limits set x --concurrency 8/day": "concurrency: write N",
    "limits set x --usd 1/day --tokens 1/day": "a limit is of one thing",
    "limits set x --usd 1/day --warn --block": "A limit does one thing",
    "traffic tail -n 100000": "-n",
    "query SELECT --timeout soon": "--timeout: not a duration: 'soon'",
    "top --window soon": "--window: not a duration: 'soon'",
    "silences create --for soon --match rule=slow --reason x": "'soon'",
    "endpoints route x --first-byte-timeout soon": "--first-byte-timeout: not a duration: 'soon'",
}


@pytest.mark.parametrize("words", MISUSES)
def test_a_misuse_is_one_line_and_code_2(words: str, pilotage: CommandLine) -> None:
    said = pilotage(*words.split())

    assert is_one_clear_line(said), said
    assert said.code == 2
    assert MISUSES[words] in said.err
    assert not pilotage.data.exists()


REFUSALS = {
    "models show nothing": "There is no model 'nothing'.",
    "models show ../projects": "'../projects' is not a name.",
    "models delete nothing@1.0.0": "There is no model 'nothing'.",
    "models pull nothing": "There are no packaged weights nothing.",
    "endpoints show nothing": "There is no endpoint 'nothing'.",
    "endpoints show a?b": "'a?b' is not a model name.",
    "endpoints deploy nothing tiny": "There is no endpoint 'nothing'.",
    "keys revoke key_nothing": "There is no key 'key_nothing'.",
    "tenants delete nobody": "There is no tenant 'nobody'.",
    "projects create default": "There is a project 'default' already.",
    "models list --project nowhere": "There is no project 'nowhere'.",
    "prices set tiny --input 1 --output dear": "output: 'dear' is not a price.",
    "usage --by colour": "by: usage cannot be summed up by 'colour'.",
    "usage --since yesterday": "since: 'yesterday' is not a time.",
    "operations show op_nothing": "There is no operation 'op_nothing'.",
    "chat hello": "No server runs, so no model answers.",
    "traffic tail": "No server runs, so there are no calls to follow.",
    "metrics --window soon": "window: not a duration: 'soon'",
    "quality --window soon": "window: not a duration: 'soon'",
    "alerts set slow p95_latency>2s --keep-firing-for soon": "'soon'",
    "routes set page --to mail --repeat soon": "'soon'",
    "routes export -o gone/x.yml": "gone/x.yml: No such file or directory.",
    "alerts export -o gone/x.yml": "gone/x.yml: No such file or directory.",
    "audit checkpoint -o gone/x": "gone/x: No such file or directory.",
    "audit export gone/x.jsonl": "gone/x.jsonl: No such file or directory.",
    "calendar list --ics gone/x.ics": "gone/x.ics: No such file or directory.",
    "chargeback export 2026-03 gone/x.csv": "gone/x.csv: No such file or directory.",
    "chargeback reconcile 2026-03 gone.csv --provider openai": "gone.csv: No such file",
}


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refusal_is_one_line_and_code_1(words: str, fresh: CommandLine) -> None:
    said = fresh(*words.split())

    assert is_one_clear_line(said), said
    assert said.code == 1
    assert REFUSALS[words] in said.err


# settings


def test_settings_are_shown_with_their_origin_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pilotage.yaml").write_text(
        "database: {url: 'postgresql://p@127.0.0.1/p', password: 'env:MARKER_SECRET'}\n"
    )
    monkeypatch.setenv("MARKER_SECRET", "do-not-show-this")
    pilotage = CommandLine(tmp_path, PILOTAGE_LOG_LEVEL="error")
    shown = pilotage.json("config", "show")["settings"]
    texts = [
        pilotage.ok("config", *words.split()).out for words in ("show", "check", "check --all")
    ]

    assert shown["database.password"] == {"value": "env:MARKER_SECRET", "origin": "pilotage.yaml"}
    assert shown["log.level"] == {"value": "error", "origin": "PILOTAGE_LOG_LEVEL"}
    assert shown["engine.slots"]["origin"] == "default"
    assert not any("do-not-show-this" in text for text in texts)
    assert "The settings are valid: 6 set" in texts[1]
    assert "longest life of a call" in texts[2]
    monkeypatch.delenv("MARKER_SECRET")
    missing = pilotage("config", "check")
    assert (missing.code, "MARKER_SECRET" in missing.err) == (2, True)


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    run = subprocess.run([*PROGRAM, "version"], capture_output=True, text=True, check=True)

    assert run.stdout == f"{product.__version__}\n"
    assert CommandLine(tmp_path).json("version") == {"version": product.__version__}


def test_migrating_says_what_it_did(tmp_path: Path) -> None:
    pilotage = CommandLine(tmp_path)

    assert "from schema none to" in pilotage.ok("migrate").out
    assert "already" in pilotage.ok("migrate").out
    assert stat.S_IMODE(pilotage.data.stat().st_mode) == 0o700
