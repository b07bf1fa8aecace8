"""Process settings: ``pilotage.yaml`` and ``PILOTAGE_*`` variables, checked before anything starts.

Only what a process needs to start is here (paths, ports, database, limits of the process itself);
models, keys, prices and weights are API objects. The only module that reads the environment.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import msgspec
import yaml

from pilotage.core.addresses import NOTICE_PREFIX
from pilotage.core.duration import parse_duration_us
from pilotage.core.errors import PilotageError
from pilotage.kit.channel_settings import ChannelSettings, find_channel_flaws
from pilotage.kit.engine_settings import EngineCommand, EngineSettings, read_engines
from pilotage.kit.number_settings import (
    CallSettings,
    CostSettings,
    MetricSettings,
    SampleSettings,
    SpoolSettings,
)
from pilotage.kit.setting_rules import (
    find_counters_flaw,
    find_database_flaw,
    find_reference_flaw,
)
from pilotage.kit.setting_types import Duration, Port, doc

CONFIG_FILE = "pilotage.yaml"
ENV_PREFIX = "PILOTAGE_"
_NOT_SETTINGS = {"PILOTAGE_CONFIG"}
_OWN_SECRETS = (  # settings that say where a secret of this installation is
    "database.password",
    "counters.password",
    "telemetry.otlp_headers",
    "remote.credential",
    "control.credential",
    "secrets.root_keys",
    "gateway.tls_key",
)
_FOR_ALL = re.compile(  # variables that programs of others are given, too
    "(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|LD_LIBRARY_PATH)|"
    "(LC|XDG|CUDA|NVIDIA|NCCL|ROCR|HIP)_.*"
)


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data plane: one listening socket shared by N processes."""

    host: Annotated[str, doc("address to listen on")] = "127.0.0.1"
    port: Annotated[Port, doc("port of /v1; 0 picks a free one")] = 8080
    processes: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=64,
            description=(
                "gateway processes; 0 is one, or half the cores where counters.url is shared"
            ),
        ),
    ] = 0
    max_body_mb: Annotated[
        int,
        msgspec.Meta(ge=1, le=1024, description="largest request body, MiB; larger ones get 413"),
    ] = 16
    call_timeout: Annotated[Duration, doc("longest life of a call, the answer included")] = "10m"
    connect_timeout: Annotated[Duration, doc("time to connect to a model")] = "5s"
    stall_timeout: Annotated[Duration, doc("longest silence of a model within an answer")] = "60s"
    reader_timeout: Annotated[
        Duration, doc("longest time a client may leave its answer unread")
    ] = "30s"
    drain_timeout: Annotated[Duration, doc("time that running calls get when the server stops")] = (
        "30s"
    )
    tls_certificate: Annotated[
        str, doc("file with the certificate (and its chain) of the door, PEM; none is plain HTTP")
    ] = ""
    tls_key: Annotated[str, doc("file with the certificate's private key, PEM")] = ""
    plain_http: Annotated[
        Literal["loopback", "anywhere"],
        doc("where the door may listen without a certificate"),
    ] = "loopback"


class CounterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where limits and budgets are counted."""

    url: Annotated[
        str,
        doc(
            "'memory' (one gateway process) or valkey://HOST:PORT/DB, valkeys:// with TLS, "
            "without a password"
        ),
    ] = "memory"
    password: Annotated[str, doc("reference to the password: env:NAME or file:PATH")] = ""
    ca_file: Annotated[str, doc("file with the certificates to trust, PEM")] = ""
    timeout: Annotated[Duration, doc("longest wait for an answer of the store")] = "50ms"


class EgressSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which addresses may be called from here."""

    allow: Annotated[
        str,
        doc(
            "hosts that may be called, separated by commas: api.openai.com, *.googleapis.com, "
            "10.1.2.0/24, 127.0.0.1:9000; empty or * is every public address. Private and loopback "
            "addresses must be named, metadata addresses are never called"
        ),
    ] = ""


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces and metrics that are sent elsewhere (never a prompt)."""

    otlp_url: Annotated[
        str,
        doc("OTLP/HTTP address of a collector, such as http://127.0.0.1:4318; none sends none"),
    ] = ""
    otlp_headers: Annotated[
        str, doc("reference to header lines for the collector: env:NAME or file:PATH")
    ] = ""
    sample_percent: Annotated[
        int,
        msgspec.Meta(ge=0, le=100, description="part of ordinary calls that is traced, percent"),
    ] = 5
    slow: Annotated[Duration, doc("calls at least this long are always traced")] = "10s"
    metrics_every: Annotated[
        Duration, doc("how often the metrics of all processes are sent there; 0s sends none")
    ] = "1m"


class RemoteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``pilotage gateway`` needs to run apart from its control plane."""

    control_url: Annotated[str, doc("address of the control plane, https://HOST:PORT")] = ""
    credential: Annotated[
        str, doc("reference to the gateway's credential: env:NAME or file:PATH")
    ] = ""
    snapshots: Annotated[
        str,
        doc(
            "where Snapshots come from if not from the control plane: a folder, or the https:// "
            "address of one in a blob store"
        ),
    ] = ""
    public_key: Annotated[str, doc("the key that Snapshots are signed with, hex")] = ""
    ca_file: Annotated[str, doc("file with the certificates to trust, PEM")] = ""


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane: one process."""

    host: Annotated[str, doc("address to listen on")] = "127.0.0.1"
    port: Annotated[Port, doc("port of /api/v1; 0 picks a free one")] = 8081
    plain_http: Annotated[
        Literal["loopback", "anywhere"],
        doc("where it may listen: it speaks plain HTTP, for a proxy that encrypts"),
    ] = "loopback"
    credential: Annotated[
        str,
        doc(
            "reference to the credential that commands act with: env:NAME or file:PATH; "
            "empty: the administrator's, in the data folder"
        ),
    ] = ""


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the control plane keeps its rows."""

    url: Annotated[
        str,
        doc(
            "'sqlite' (a file in the data folder) or postgresql://USER@HOST:PORT/NAME, "
            "without a password"
        ),
    ] = "sqlite"
    password: Annotated[str, doc("reference to the password: env:NAME or file:PATH")] = ""


class SnapshotSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the control plane publishes to gateways."""

    max_age: Annotated[Duration, doc("age at which a gateway stops trusting its Snapshot")] = "24h"


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The audit log."""

    checkpoints: Annotated[
        str,
        doc(
            "folders that signed checkpoints are put into, separated by commas; best on another "
            "disk. None named: the folder checkpoints beside the log"
        ),
    ] = ""
    checkpoint_every: Annotated[Duration, doc("how often a checkpoint is put there")] = "10m"
    keep: Annotated[
        Duration, doc("how long entries keep their texts; their hashes stay for ever")
    ] = "2557d"
    on_failure: Annotated[
        Literal["closed", "open"],
        doc(
            "what becomes of changes while the log cannot be written: refused, or made and "
            "appended later"
        ),
    ] = "closed"


class SecretSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the keys are that wrap all others."""

    root_keys: Annotated[
        str, doc("the root keys, file:PATH (0600); empty: keys/root.key in the data folder")
    ] = ""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the processes say of themselves (never a prompt)."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], doc("least severity written")
    ] = "info"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All process settings."""

    data_dir: Annotated[
        str, doc("the data folder: database, models, Snapshots, spool, credentials")
    ] = "~/.pilotage"
    gateway: GatewaySettings = msgspec.field(default_factory=GatewaySettings)
    control: ControlSettings = msgspec.field(default_factory=ControlSettings)
    database: DatabaseSettings = msgspec.field(default_factory=DatabaseSettings)
    spool: SpoolSettings = msgspec.field(default_factory=SpoolSettings)
    snapshot: SnapshotSettings = msgspec.field(default_factory=SnapshotSettings)
    audit: AuditSettings = msgspec.field(default_factory=AuditSettings)
    calls: CallSettings = msgspec.field(default_factory=CallSettings)
    samples: SampleSettings = msgspec.field(default_factory=SampleSettings)
    metrics: MetricSettings = msgspec.field(default_factory=MetricSettings)
    costs: CostSettings = msgspec.field(default_factory=CostSettings)
    engine: EngineSettings = msgspec.field(default_factory=EngineSettings)
    engines: dict[str, EngineCommand] = {}  # commands by name: in the file alone
    log: LogSettings = msgspec.field(default_factory=LogSettings)
    counters: CounterSettings = msgspec.field(default_factory=CounterSettings)
    egress: EgressSettings = msgspec.field(default_factory=EgressSettings)
    channels: ChannelSettings = msgspec.field(default_factory=ChannelSettings)
    telemetry: TelemetrySettings = msgspec.field(default_factory=TelemetrySettings)
    remote: RemoteSettings = msgspec.field(default_factory=RemoteSettings)
    secrets: SecretSettings = msgspec.field(default_factory=SecretSettings)

    @property
    def data_path(self) -> Path:
        """The data folder as an absolute path."""
        return Path(self.data_dir).expanduser().absolute()


class LoadedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, where each that is not a default comes from, and the file that was read."""

    settings: Settings
    origins: dict[str, str]
    file: Path | None


class SettingDoc(msgspec.Struct, frozen=True, kw_only=True):
    """One documented setting: its dotted name, its variable, its default and its meaning."""

    name: str
    variable: str
    type: str
    default: str
    description: str


def load_settings(
    config_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read file and variables (variables win) and check everything.

    ``config_file`` defaults to ``PILOTAGE_CONFIG`` or, if it exists, ``pilotage.yaml`` here.
    Raises ``invalid_config``, one line that names the file or variable, the setting and the fix.
    """
    return read_settings(config_file, environ).settings


def read_settings(
    config_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Do as :func:`load_settings` and say as well where each setting comes from."""
    variables = os.environ if environ is None else environ
    chosen = config_file or (
        Path(variables["PILOTAGE_CONFIG"]) if "PILOTAGE_CONFIG" in variables else None
    )
    path = chosen or Path(CONFIG_FILE)
    tree = _read_file(path) if chosen or path.exists() else {}
    engines = read_engines(tree.pop("engines", None), str(path))
    origin = {name: str(path) for name in _leaf_names(tree)}
    _check_names(tree, str(path))
    for name, text in _read_variables(variables).items():
        _set(tree, name, _guess(text, name))
        origin[name] = ENV_PREFIX + name.replace(".", "_").upper()
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as wrong:
        raise _explain(wrong, origin, str(path)) from None
    _check_values(settings, origin)
    settings = msgspec.structs.replace(settings, engines=engines)
    return LoadedSettings(
        settings=settings, origins=origin, file=path if chosen or path.exists() else None
    )


def list_settings() -> list[SettingDoc]:
    """Return every setting with its documentation, in order."""
    documented = []
    for name, field in _walk(Settings):
        annotation = msgspec.inspect.type_info(field.type)
        description = getattr(annotation, "extra_json_schema", None) or {}
        documented.append(
            SettingDoc(
                name=name,
                variable=ENV_PREFIX + name.replace(".", "_").upper(),
                type=_type_name(annotation),
                default=str(field.default),
                description=str(description.get("description", "")),
            )
        )
    return documented


def get_value(settings: Settings, name: str) -> str:
    """Return the value of a setting by its dotted name, as text."""
    node: Any = settings
    for part in name.split("."):
        node = getattr(node, part)
    return str(node)


def resolve_secret(reference: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the secret that ``env:NAME`` or ``file:PATH`` points to.

    Raises ``invalid_config`` if there is none.
    """
    kind, _, where = reference.partition(":")
    if kind == "env":
        secret = (os.environ if environ is None else environ).get(where)
        if secret is None:
            raise PilotageError(
                "invalid_config", f"The variable {where} named by a secret reference is not set."
            )
    elif kind == "file":
        try:
            secret = Path(where).expanduser().read_text(encoding="utf-8").strip()
        except OSError as failed:
            raise PilotageError(
                "invalid_config", f"The secret file {where} cannot be read: {failed.strerror}."
            ) from None
        except UnicodeDecodeError:
            raise PilotageError(
                "invalid_config", f"The secret file {where} is not UTF-8 text."
            ) from None
    else:
        raise PilotageError(
            "invalid_config", "A secret is given by reference.", hint="Write env:NAME or file:PATH."
        )
    if not secret:
        raise PilotageError("invalid_config", f"The secret {reference} is empty.")
    return secret


def duration_s(text: Duration) -> float:
    """Return the seconds of a duration setting."""
    return parse_duration_us(text) / 1e6


def child_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment with additions, for a child process."""
    return {**os.environ, **extra}


def foreign_environment(**extra: str) -> dict[str, str]:
    """Return what programs that are not ours need of this environment, with additions.

    What else is in it may be secrets: settings refer to them as variables.
    """
    kept = {name: text for name, text in os.environ.items() if _FOR_ALL.fullmatch(name)}
    return {**kept, **extra}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as failed:
        raise PilotageError(
            "invalid_config", f"{path} cannot be read: {failed.strerror}."
        ) from None
    except UnicodeDecodeError:
        raise PilotageError("invalid_config", f"{path} is not UTF-8 text.") from None
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(wrong, "problem", None) or getattr(wrong, "reason", "")
        raise PilotageError(
            "invalid_config", f"{path} is not valid YAML{where}: {problem}."
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise PilotageError(
            "invalid_config", f"{path} must hold settings such as 'gateway: {{port: 8080}}'."
        )
    sections = {name.partition(".")[0] for name, _ in _walk(Settings) if "." in name}
    return {  # a section of comments alone is no mistake
        name: value
        for name, value in content.items()
        if name not in sections or value not in (None, {})
    }


def _read_variables(variables: Mapping[str, str]) -> dict[str, str]:
    by_variable = {doc.variable: doc.name for doc in list_settings()}
    found = {}
    for variable, text in variables.items():
        if not variable.startswith(ENV_PREFIX) or variable in _NOT_SETTINGS:
            continue
        if variable.startswith(NOTICE_PREFIX):  # a secret of a channel
            continue
        if variable not in by_variable:
            raise PilotageError(
                "invalid_config",
                f"{variable} is not a setting.",
                hint=_suggest(
                    variable.removeprefix(ENV_PREFIX),
                    {known.removeprefix(ENV_PREFIX) for known in by_variable},
                    ENV_PREFIX,
                ),
            )
        found[by_variable[variable]] = text
    return found


def _check_names(tree: dict[str, Any], source: str) -> None:
    known = {name for name, _ in _walk(Settings)}
    sections = {name.partition(".")[0] for name in known}
    for name in map(str, tree):
        if name in known and "." in name:
            section, _, setting = name.partition(".")
            raise PilotageError(
                "invalid_config",
                f"{source}: {name} is written in one line.",
                hint=f"Write '{section}:' and below it, indented, '{setting}: ...'.",
            )
    for name in _leaf_names(tree):
        if name not in known and not (name in sections and not isinstance(_get(tree, name), dict)):
            raise PilotageError(
                "invalid_config", f"{source}: {name} is not a setting.", hint=_suggest(name, known)
            )


def _check_values(settings: Settings, origin: dict[str, str]) -> None:
    for name, (problem, hint) in _judge(settings):
        if problem:
            raise PilotageError("invalid_config", f"{origin[name]}: {name} {problem}.", hint=hint)
    if settings.egress.allow:
        _check_egress(settings.egress.allow, origin["egress.allow"])


def _judge(settings: Settings) -> Iterator[tuple[str, tuple[str, str]]]:
    """Say what is wrong with settings, without showing them, and how to mend it."""
    database, counters = settings.database, settings.counters
    yield "database.url", find_database_flaw(database.url)
    yield "database.password", find_reference_flaw(database.password)
    yield "counters.password", find_reference_flaw(counters.password)
    if counters.url != "memory":
        yield "counters.url", find_counters_flaw(counters.url)
    elif settings.gateway.processes > 1:
        yield (
            "gateway.processes",
            (
                "is more than one, and limits are counted in the memory of each",
                "Set counters.url to valkey://HOST:PORT/DB, or gateway.processes to 1.",
            ),
        )
    own = {name: get_value(settings, name) for name in _OWN_SECRETS}
    yield from find_channel_flaws(settings.channels, settings.data_path, own)


def _check_egress(allow: str, origin: str) -> None:
    from pilotage.kit.egress import EgressRules  # loads asyncio, which most commands do without

    try:
        EgressRules.parse(allow)
    except PilotageError as wrong:
        raise PilotageError(
            "invalid_config", f"{origin}: {wrong.detail}", hint=wrong.hint
        ) from None


def _explain(wrong: msgspec.ValidationError, origin: dict[str, str], source: str) -> PilotageError:
    text = str(wrong)
    message, _, where = text.partition(" - at `$.")
    name = where.rstrip("`")
    message = message.replace("`", "'")
    if "matching regex" in message or (
        message.startswith("Expected 'str', got") and _is_duration(name)
    ):
        message = "Expected a duration such as 100ms, 30s, 5m, 24h or 7d"
    return PilotageError(
        "invalid_config", f"{origin.get(name, source)}: {name or 'settings'}: {message}."
    )


def _suggest(name: str, known: set[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return (
        f"Did you mean {prefix}{near[0]}?"
        if near
        else "See 'pilotage config check --all' for all settings."
    )


def _guess(text: str, name: str) -> object:
    field = dict(_walk(Settings))[name]
    is_number = _type_name(msgspec.inspect.type_info(field.type)) == "integer"
    return int(text) if is_number and re.fullmatch(r"-?[0-9]{1,18}", text) else text


def _walk(
    struct: type[msgspec.Struct], prefix: str = ""
) -> list[tuple[str, msgspec.structs.FieldInfo]]:
    found = []
    for field in msgspec.structs.fields(struct):
        if get_origin(field.type) is dict:
            continue  # named by whoever writes the file
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found.extend(_walk(field.type, f"{prefix}{field.name}."))
        else:
            found.append((prefix + field.name, field))
    return found


def _is_duration(name: str) -> bool:
    field = dict(_walk(Settings)).get(name)
    return field is not None and _type_name(msgspec.inspect.type_info(field.type)) == "duration"


def _type_name(annotation: object) -> str:
    if isinstance(annotation, msgspec.inspect.Metadata):
        return _type_name(annotation.type)
    if isinstance(annotation, msgspec.inspect.LiteralType):
        return " | ".join(str(value) for value in annotation.values)
    if isinstance(annotation, msgspec.inspect.IntType):
        return "integer"
    if isinstance(annotation, msgspec.inspect.StrType) and annotation.pattern:
        return "duration"
    return "text"


def _leaf_names(tree: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            names.extend(_leaf_names(value, f"{prefix}{key}."))
        else:
            names.append(f"{prefix}{key}")
    return names


def _get(tree: dict[str, Any], name: str) -> object:
    node: Any = tree
    for part in name.split("."):
        node = node[part]
    return node


def _set(tree: dict[str, Any], name: str, value: object) -> None:
    *folders, leaf = name.split(".")
    for folder in folders:
        child = tree.setdefault(folder, {})
        tree = child if isinstance(child, dict) else {}
    tree[leaf] = value
