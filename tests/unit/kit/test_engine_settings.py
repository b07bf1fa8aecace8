"""Engines of ``pilotage.yaml``: presets are filled in, and every mistake is one line."""

from pathlib import Path

import msgspec
import pytest

from pilotage.core.errors import PilotageError
from pilotage.kit.config import list_settings, load_settings
from pilotage.kit.engine_settings import EngineCommand

PLAIN = "argv: [serve, '{port}'], environment: {K: '{key}'}"


def load(tmp_path: Path, engines: str) -> dict[str, EngineCommand]:
    file = tmp_path / "pilotage.yaml"
    file.write_text(f"engine: {{slots: 3}}\nengines: {engines}\n")
    settings = load_settings(file, {})
    assert settings.engine.slots == 3
    assert msgspec.json.decode(msgspec.json.encode(settings), type=type(settings)) == settings
    return settings.engines


def test_an_installation_names_none_at_first(tmp_path: Path) -> None:
    assert load_settings(None, {}).engines == {}
    assert load(tmp_path, "") == {}


def test_vllm_gets_its_key_as_a_variable(tmp_path: Path) -> None:
    full = load(tmp_path, "{big: {preset: vllm, argv: [--quantization, fp8]}}")["big"].fill_in()
    assert full.argv[:3] == ["vllm", "serve", "{model}"]
    assert full.argv[-2:] == ["--quantization", "fp8"]
    assert full.environment["VLLM_API_KEY"] == "{key}"
    assert full.ready_path == "/health"


def test_sglang_gets_its_key_in_a_file(tmp_path: Path) -> None:
    engines = "{big: {preset: sglang, program: [/opt/sglang/bin/python, -m, sglang.launch_server]}}"
    full = load(tmp_path, engines)["big"].fill_in()
    assert full.argv[:5] == [
        "/opt/sglang/bin/python",
        "-m",
        "sglang.launch_server",
        "--config",
        "{config}",
    ]
    assert full.config == "api-key: {key}\n"


def test_any_command_will_do(tmp_path: Path) -> None:
    command = load(tmp_path, f"{{own: {{{PLAIN}}}}}")["own"].fill_in()
    assert (command.argv, command.ready_path) == (["serve", "{port}"], "/health")


@pytest.mark.parametrize(
    ("engines", "why"),
    [
        ("[vllm]", "engines: Expected 'object', got 'array'."),
        ("{big: {preset: tgi}}", "Invalid enum value 'tgi'"),
        ("{big: {argc: [x]}}", "unknown field 'argc'"),
        (f"{{llamacpp: {{{PLAIN}}}}}", "engines.llamacpp is no name for an engine."),
        (f"{{Big: {{{PLAIN}}}}}", "engines.Big is no name for an engine."),
        (f"{{big: {{program: [x], {PLAIN}}}}}", "has a program and no preset."),
        ("{big: {environment: {K: '{key}{port}'}}}", "says nothing to run."),
        ("{big: {preset: vllm, argv: ['{modle}']}}", "has {modle}, which nothing is filled in for"),
        ("{big: {argv: [serve], environment: {K: '{key}'}}}", "says nowhere {port}."),
        ("{big: {preset: vllm, argv: [--api-key, '{key}']}}", "has {key} among its arguments."),
        ("{big: {argv: [serve, '{port}']}}", "says nowhere {key}."),
        ("{big: {argv: [serve, '{port}'], config: '{key}'}}", "has a config that no argument"),
        (f"{{big: {{{PLAIN}, ready_path: health}}}}", "has a ready_path without a slash."),
    ],
)
def test_a_flaw_is_named(tmp_path: Path, engines: str, why: str) -> None:
    with pytest.raises(PilotageError) as refused:
        load(tmp_path, engines)
    assert refused.value.code == "invalid_config"
    assert why in refused.value.detail
    assert "\n" not in refused.value.detail


def test_no_variable_sets_a_command() -> None:
    assert not [found for found in list_settings() if found.name.startswith("engines")]
    with pytest.raises(PilotageError, match="PILOTAGE_ENGINES is not a setting"):
        load_settings(None, {"PILOTAGE_ENGINES": "{}"})
