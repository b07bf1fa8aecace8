"""Process settings: every mistake is one line that names where, what and how to mend it."""

import os
from pathlib import Path

import msgspec
import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.config import (
    ENV_PREFIX,
    Settings,
    child_environment,
    duration_s,
    list_settings,
    load_settings,
    resolve_secret,
)

SECRET = "hunter2-very-secret"


def write(path: Path, content: str | bytes) -> Path:
    file = path / "pilotage.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refuse(path: Path | None, environ: dict[str, str]) -> PilotageError:
    with pytest.raises(PilotageError) as refused:
        load_settings(path, environ)
    error = refused.value
    assert error.code == "invalid_config"
    assert "\n" not in error.detail + error.hint
    assert SECRET not in f"{error} {error.detail} {error.hint} {error!r}"
    return error


# reading


def test_without_a_file_everything_has_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_settings(None, {}) == Settings()


def test_the_file_of_the_working_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "gateway: {port: 9}\n")

    assert load_settings(None, {}).gateway.port == 9


def test_the_file_named_by_a_variable_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, "control:\n  port: 10\n")

    assert load_settings(None, {"PILOTAGE_CONFIG": str(file)}).control.port == 10


def test_a_variable_goes_before_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "gateway: {port: 9, host: 0.0.0.0}\nlog: {level: debug}\n")
    settings = load_settings(file, {"PILOTAGE_GATEWAY_PORT": "11", "HOME": "/home/u"})

    assert (settings.gateway.port, settings.gateway.host) == (11, "0.0.0.0")
    assert settings.log.level == "debug"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# nothing\n",
        "---\n",
        "gateway:\n  # port: 1\n",
        "gateway: {}\nlog:\n",
        "\ufeffgateway:",
    ],
)
def test_what_says_nothing_changes_nothing(tmp_path: Path, content: str) -> None:
    file = write(tmp_path, content)

    assert load_settings(file, {}) == Settings()
    assert load_settings(file, {"PILOTAGE_GATEWAY_PORT": "5"}).gateway.port == 5


def test_every_setting_can_be_given_either_way(tmp_path: Path) -> None:
    other = {"integer": "17", "duration": "1h30m", "text": "env:OTHER"}
    for doc in list_settings():
        value = other.get(doc.type) or next(
            text for text in doc.type.split(" | ") if text != doc.default
        )
        if doc.name == "database.url":
            value = "postgresql://pilotage@127.0.0.1:5432/pilotage"
        if doc.name in ("engine.context_tokens", "calls.query_memory_mb"):
            value = "1024"
        if doc.name == "gateway.processes":
            value = "1"
        if doc.name == "counters.url":
            value = "valkeys://limits.bank:6379/1"
        if doc.name == "egress.allow":
            value = "models.bank:443"
        section, _, leaf = doc.name.rpartition(".")
        text = f"{section}:\n  {leaf}: {value}\n" if section else f"{leaf}: {value}\n"
        by_file = load_settings(write(tmp_path, text), {})
        by_variable = load_settings(write(tmp_path, ""), {doc.variable: value})

        assert by_file == by_variable, doc.name
        assert by_file != Settings(), doc.name


def test_the_data_folder_is_an_absolute_path() -> None:
    settings = load_settings(None, {"PILOTAGE_DATA_DIR": "~/somewhere"})

    assert settings.data_path == Path.home() / "somewhere"
    assert msgspec.structs.replace(settings, data_dir="here").data_path == Path.cwd() / "here"


def test_a_duration_is_given_in_seconds() -> None:
    assert duration_s(Settings().gateway.call_timeout) == 600
    assert duration_s("1m30.5s") == 90.5


def test_a_child_gets_this_environment_and_more() -> None:
    made = child_environment(PILOTAGE_TEST="1")

    assert made == {**os.environ, "PILOTAGE_TEST": "1"}


# mistakes: what the file or the variables say, and what the one line must name

IN_FILE: dict[str, tuple[str | bytes, list[str], str]] = {
    "unknown section": ("gatway: {port: 1}", ["gatway.port is not a setting"], "gateway.port"),
    "unknown setting": ("gateway: {prot: 1}", ["gateway.prot is not a setting"], "gateway.port"),
    "unknown and unlike": ("zzz: 1", ["zzz is not a setting"], "config check --all"),
    "empty unknown section": ("zzz:", ["zzz is not a setting"], "config check --all"),
    "a number as name": ("1: 2", ["1 is not a setting"], "config check"),
    "dotted name": ("gateway.port: 1", ["gateway.port is written in one line"], "'port: ...'"),
    "text for a number": ("gateway: {port: eighty}", ["gateway.port", "Expected 'int'"], ""),
    "number for text": ("gateway: {host: 1}", ["gateway.host", "Expected 'str'"], ""),
    "true for a number": ("gateway: {port: true}", ["gateway.port", "Expected 'int'"], ""),
    "fraction": ("gateway: {port: 80.5}", ["gateway.port", "Expected 'int'"], ""),
    "too large": ("gateway: {port: 65536}", ["gateway.port", "<= 65535"], ""),
    "too small": ("gateway: {port: -1}", ["gateway.port", ">= 0"], ""),
    "huge": (f"gateway: {{port: {10**30}}}", ["gateway.port", "<= 65535"], ""),
    "no choice": ("log: {level: loud}", ["log.level", "loud"], ""),
    "no duration": ("gateway: {call_timeout: soon}", ["call_timeout", "such as 100ms"], ""),
    "bare number": ("gateway: {call_timeout: 30}", ["call_timeout", "such as 100ms"], ""),
    "nothing for a value": ("gateway: {port: }", ["gateway.port", "Expected 'int'"], ""),
    "section as value": ("gateway: 8080", ["gateway", "Expected 'object'"], ""),
    "section as list": ("gateway: [1]", ["gateway", "Expected 'object'"], ""),
    "section as false": ("gateway: false", ["gateway", "Expected 'object'"], ""),
    "value as section": ("data_dir: {a: 1}", ["data_dir.a is not a setting"], "data_dir"),
    "a list": ("- 1", ["must hold settings such as 'gateway: {port: 8080}'"], ""),
    "a text": ("hello", ["must hold settings"], ""),
    "no YAML": ("gateway: {port: 1", ["not valid YAML at line 1, column"], ""),
    "tabs": ("gateway:\n\tport: 1", ["not valid YAML at line 2, column 1"], ""),
    "control letter": ("gateway: \x01", ["not valid YAML", "special characters"], ""),
    "Python objects": ("a: !!python/object:os.system {}", ["not valid YAML at line 1"], ""),
    "no UTF-8": (b"data_dir: \xff", ["is not UTF-8 text"], ""),
    "other database": ("database: {url: mysql://u@h/n}", ["database.url must be"], "postgresql://"),
    "no database": ("database: {url: ''}", ["database.url must be 'sqlite'"], "For example"),
    "bad port": ("database: {url: 'postgresql://u@h:no/n'}", ["database.url must be"], "5432"),
    "password in the URL": (
        f"database: {{url: 'postgresql://u:{SECRET}@h/n'}}",
        ["database.url holds a password"],
        "env:NAME or file:PATH",
    ),
    "empty password in the URL": (
        "database: {url: 'postgresql://u:@h/n'}",
        ["database.url holds a password"],
        "database.password",
    ),
    "password with a slash": (
        f"database: {{url: 'postgresql://u:a%2F{SECRET}@h/n'}}",
        ["database.url holds a password"],
        "env:NAME",
    ),
    "password in the query": (
        f"database: {{url: 'postgresql://u@h/n?password={SECRET}'}}",
        ["database.url holds a password"],
        "env:NAME",
    ),
    "secret itself": (
        f"database: {{password: {SECRET}}}",
        ["database.password must be a reference"],
        "env:NAME or file:PATH",
    ),
    "limits nowhere": ("counters: {url: redis://h}", ["counters.url must be"], "valkey://"),
    "limits at no port": ("counters: {url: 'valkey://h:no'}", ["counters.url must be"], "6379"),
    "limits in no database": ("counters: {url: valkey://h/x}", ["counters.url must be"], "/0"),
    "password of the limits": (
        f"counters: {{url: 'valkey://:{SECRET}@h/0'}}",
        ["counters.url holds more than host, port and database"],
        "counters.password",
    ),
    "secret of the limits": (
        f"counters: {{password: {SECRET}}}",
        ["counters.password must be a reference"],
        "env:NAME or file:PATH",
    ),
    "two who count apart": (
        "gateway: {processes: 2}",
        ["gateway.processes is more than one, and limits are counted in the memory of each"],
        "counters.url",
    ),
    "calls to a bad place": (
        "egress: {allow: 'api.openai.com, 10.1.2.3/24'}",
        ["egress.allow: '10.1.2.3/24' is no host, network or address"],
        "*.googleapis.com",
    ),
    "calls to metadata": (
        "egress: {allow: 169.254.169.254}",
        ["egress.allow: 169.254.169.254 is never called"],
        "",
    ),
    "secret as a number": ("database: {password: 1234}", ["database.password", "'str'"], ""),
}


@pytest.mark.parametrize("name", IN_FILE)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, name: str) -> None:
    content, named, hint = IN_FILE[name]
    file = write(tmp_path, content)
    error = refuse(file, {})

    assert error.detail.startswith(str(file))
    for part in named:
        assert part in error.detail
    assert hint in error.hint
    assert bool(error.hint) == bool(hint)


IN_VARIABLES = {
    "PILOTAGE_GATWAY_PORT": ("1", "is not a setting", "Did you mean PILOTAGE_GATEWAY_PORT?"),
    "PILOTAGE_XYZZY": ("1", "is not a setting", "config check --all"),
    "PILOTAGE_GATEWAY_PORT": ("eighty", "gateway.port: Expected 'int'", ""),
    "PILOTAGE_CONTROL_PORT": ("", "control.port: Expected 'int'", ""),
    "PILOTAGE_GATEWAY_PROCESSES": ("65", "gateway.processes: Expected 'int' <= 64", ""),
    "PILOTAGE_GATEWAY_MAX_BODY_MB": ("9" * 5000, "gateway.max_body_mb: Expected 'int'", ""),
    "PILOTAGE_SPOOL_SYNC": ("often", "spool.sync: Invalid enum value 'often'", ""),
    "PILOTAGE_ENGINE_START_TIMEOUT": ("2", "engine.start_timeout: Expected a duration", ""),
    "PILOTAGE_DATABASE_URL": (
        f"postgresql://u:{SECRET}@h/n",
        "database.url holds a password",
        "env:NAME",
    ),
    "PILOTAGE_EGRESS_ALLOW": ("ab c://d", "egress.allow: 'c://d' is no host", "127.0.0.1:9000"),
    "PILOTAGE_DATABASE_PASSWORD": (SECRET, "database.password must be a reference", "env:NAME"),
    "PILOTAGE_COUNTERS_PASSWORD": (
        "env:PILOTAGE_NOTICE_X",
        "counters.password names what channels may send anywhere",
        "PILOTAGE_NOTICE_*",
    ),
    "PILOTAGE_CHANNELS_FILES": ("~/.pilotage/x", "is in the data folder, or around it", "beside"),
}


@pytest.mark.parametrize("variable", IN_VARIABLES)
def test_a_mistake_in_a_variable_is_named(tmp_path: Path, variable: str) -> None:
    value, detail, hint = IN_VARIABLES[variable]
    file = write(tmp_path, "gateway: {host: 127.0.0.1}\n")
    error = refuse(file, {variable: value})

    assert error.detail.startswith(variable)
    assert detail in error.detail
    assert hint in error.hint


def test_a_file_that_is_not_there_or_none_is_named(tmp_path: Path) -> None:
    assert refuse(tmp_path / "no.yaml", {}).detail == (
        f"{tmp_path / 'no.yaml'} cannot be read: No such file or directory."
    )
    assert "Is a directory" in refuse(tmp_path, {}).detail
    missing = refuse(None, {"PILOTAGE_CONFIG": str(tmp_path / "no.yaml")})
    assert "no.yaml cannot be read" in missing.detail


# secrets


def test_a_secret_is_what_a_variable_or_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")

    assert resolve_secret("env:PASSWORD", {"PASSWORD": SECRET}) == SECRET
    assert resolve_secret(f"file:{tmp_path / 'secret'}", {}) == SECRET


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("env:NOWHERE", "NOWHERE"),
        ("env:EMPTY", "env:EMPTY is empty"),
        ("file:/no/such/file", "/no/such/file"),
        ("file:{folder}/empty", "/empty is empty"),
        ("file:{folder}/binary", "/binary"),
        (SECRET, "by reference"),
        (f"vault:{SECRET}", "by reference"),
    ],
)
def test_a_secret_that_is_not_there_is_told_without_showing_one(
    tmp_path: Path, reference: str, named: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff" + SECRET.encode())
    with pytest.raises(PilotageError) as refused:
        resolve_secret(reference.format(folder=tmp_path), {"EMPTY": "", "OTHER": SECRET})

    error = refused.value
    assert (error.code, SECRET in f"{error} {error!r} {error.hint}") == ("invalid_config", False)
    assert named in error.detail


def test_channels_have_variables_and_a_folder_of_their_own(tmp_path: Path) -> None:
    environ = {
        "PILOTAGE_NOTICE_HOOK": SECRET,  # is no setting
        "PILOTAGE_CHANNELS_FILES": str(tmp_path / "channels"),
        "PILOTAGE_DATA_DIR": str(tmp_path / "data"),
        "PILOTAGE_TELEMETRY_OTLP_HEADERS": f"file:{tmp_path}/headers",
    }
    settings = load_settings(None, environ)

    assert settings.channels.folder == tmp_path / "channels"
    (tmp_path / "channels").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "channels")
    for name, value in (
        ("PILOTAGE_CHANNELS_FILES", str(tmp_path)),
        ("PILOTAGE_TELEMETRY_OTLP_HEADERS", f"file:{tmp_path}/channels/mine/headers"),
        ("PILOTAGE_SECRETS_ROOT_KEYS", f"file:{tmp_path}/link/root.key"),
        ("PILOTAGE_GATEWAY_TLS_KEY", f"{tmp_path}/channels/mine/tls.key"),
    ):
        assert refuse(None, environ | {name: value}).detail.startswith(f"{name}: ")


def test_settings_show_the_reference_and_not_the_secret() -> None:
    environ = {"PILOTAGE_DATABASE_PASSWORD": "env:PASSWORD", "PASSWORD": SECRET}
    settings = load_settings(None, environ)

    assert settings.database.password == "env:PASSWORD"
    assert SECRET not in f"{settings!r} {settings}"


# documentation


def test_every_setting_is_documented() -> None:
    documented = list_settings()
    names = [doc.name for doc in documented]

    assert len(names) == len(set(names))
    in_the_file_alone = {"engines"}
    assert set(names) == set(leaves(Settings(), "")) - in_the_file_alone
    for doc in documented:
        assert len(doc.description) > 10, doc.name
        assert doc.variable == ENV_PREFIX + doc.name.replace(".", "_").upper()
        assert doc.type in ("integer", "duration", "text") or " | " in doc.type
    by_name = {doc.name: doc for doc in documented}
    assert by_name["gateway.port"].default == "8080"
    assert by_name["spool.sync"].type == "100ms | every | none"


def leaves(node: msgspec.Struct, prefix: str) -> list[str]:
    found = []
    for name in node.__struct_fields__:
        value = getattr(node, name)
        is_section = isinstance(value, msgspec.Struct)
        found += leaves(value, f"{prefix}{name}.") if is_section else [prefix + name]
    return found
