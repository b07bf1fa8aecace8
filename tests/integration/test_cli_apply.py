"""``pilotage apply``: all of it or nothing, again without a change, and every mistake named."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from command_line import CommandLine, provide_package
from pilotage.cli.objects.kinds import KINDS

ROOT = Path(__file__).parents[2]
RELEASE = """\
kind: Endpoint
name: team/chat
description: for trying
deployments:
- {model: tiny@1.0.0, share: 90}
- {model: tiny@1.1.0, share: 10}
---
{kind: Project, name: research}
---
{kind: Tenant, name: lab, project: research}
---
{kind: Model, name: tiny, description: small}
---
{kind: ModelVersion, model: tiny, version: 1.0.0, file: tiny.gguf}
---
{kind: ModelVersion, model: tiny, version: 1.1.0, file: ./tiny.gguf, license: MIT}
---
{kind: Price, model: tiny, input: 0.10, output: 0.60}
---
{kind: Price, model: tiny@1.1.0, free: true, from: 2026-01-01}
---
{kind: Key, name: ci, tenant: lab, project: research, expires: 30d}
"""


@pytest.fixture
def pilotage(tmp_path: Path, tiny_gguf: Path) -> CommandLine:
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")
    return CommandLine(tmp_path)


def write(pilotage: CommandLine, text: str, name: str = "release.yaml") -> str:
    (pilotage.folder / name).write_text(text)
    return name


def results(pilotage: CommandLine, *words: str) -> dict[str, str]:
    return {
        f"{item['kind']} {item['name']}": item["result"] for item in pilotage.json("apply", *words)
    }


def test_a_release_is_applied_once_and_then_unchanged(pilotage: CommandLine) -> None:
    file = write(pilotage, RELEASE)

    planned = results(pilotage, "-f", file, "--dry-run")
    assert pilotage.json("models", "list") == []
    first = pilotage.ok("apply", "-f", file, "--reason", "first look")
    second = results(pilotage, "-f", ".")

    assert set(planned.values()) == {"created"}
    assert [line.split()[:2] for line in first.out.splitlines() if "created" in line] == [
        ["created", "Project"],
        ["created", "Tenant"],
        ["created", "Model"],
        ["created", "ModelVersion"],
        ["created", "ModelVersion"],
        ["created", "Price"],
        ["created", "Price"],
        ["created", "Endpoint"],
        ["created", "Key"],
    ]
    assert len(re.findall("plt_live_", first.out)) == 1
    assert second == dict.fromkeys(planned, "unchanged")
    shown = pilotage.json("endpoints", "show", "team/chat")
    assert {item["model"]: item["percent"] for item in shown["deployments"]} == {
        "tiny@1.0.0": 90,
        "tiny@1.1.0": 10,
    }
    splits = pilotage.json("audit", "list", "--event", "endpoints.endpoint.split")
    assert {entry["reason"] for entry in splits} == {"first look"}
    assert pilotage.json("keys", "list", "--project", "research")[0]["name"] == "ci"


def test_only_what_differs_is_changed(pilotage: CommandLine) -> None:
    pilotage.ok("apply", "-f", write(pilotage, RELEASE))
    rev = pilotage.json("endpoints", "show", "team/chat")["rev"]
    changed = (
        RELEASE.replace("share: 90", "share: 0")
        .replace("share: 10", "share: 100")
        .replace("output: 0.60", "output: 0.7")
        .replace("description: small", "description: smaller")
    )

    outcome = results(pilotage, "-f", write(pilotage, changed))

    assert {name for name, result in outcome.items() if result == "changed"} == {
        "Endpoint team/chat",
        "Price tiny",
        "Model tiny",
    }
    assert set(outcome.values()) == {"changed", "unchanged"}
    endpoint = pilotage.json("endpoints", "show", "team/chat")
    assert endpoint["rev"] == rev + 1
    assert {item["model"]: item["percent"] for item in endpoint["deployments"]} == {
        "tiny@1.0.0": 0,
        "tiny@1.1.0": 100,
    }
    prices = pilotage.json("prices", "list", "--model", "tiny", "--history")
    assert [price["output"] for price in prices] == ["0.60", "0.70"]
    assert pilotage.json("models", "show", "tiny")["description"] == "smaller"


def test_a_plan_names_every_field_that_differs(pilotage: CommandLine) -> None:
    pilotage.ok("apply", "-f", write(pilotage, RELEASE))
    changed = (
        RELEASE.replace("share: 90", "share: 0")
        .replace("share: 10", "share: 100")
        .replace("description: small", "description: smaller")
        .replace("output: 0.60", "output: 0.7")
    )
    file = write(pilotage, changed)

    lines = [line.split(None, 1) for line in pilotage.ok("plan", "-f", file).out.splitlines()]
    shown = {item["name"]: item.get("different") for item in pilotage.json("plan", "-f", file)}

    assert ["share", "of tiny@1.0.0: 90 -> 0"] in lines
    assert ["description:", "small -> smaller"] in lines
    assert shown["team/chat"] == {
        "share of tiny@1.0.0": {"now": "90", "wanted": "0"},
        "share of tiny@1.1.0": {"now": "10", "wanted": "100"},
    }
    assert pilotage.json("models", "show", "tiny")["description"] == "small"


def test_drift_is_what_is_there_and_in_no_file(pilotage: CommandLine) -> None:
    file = write(pilotage, RELEASE)
    pilotage.ok("apply", "-f", file)
    clean = pilotage.json("plan", "-f", file, "--drift", "--check")
    strays = [item["name"] for item in clean if item["result"] == "not in files"]
    pilotage.ok("endpoints", "create", "by-hand")
    pilotage.ok("tenants", "create", "nobody", "--project", "research")

    checked = pilotage("plan", "-f", file, "--drift", "--check")
    found = {
        (item["kind"], item["project"], item["name"])
        for item in pilotage.json("plan", "-f", file, "--drift")
        if item["result"] == "not in files"
    }

    assert strays == []
    assert checked.code == 1
    assert found == {("Endpoint", "default", "by-hand"), ("Tenant", "research", "nobody")}
    assert pilotage("plan", "-f", file, "--check").code == 0


ROUTED = """\
{kind: Upstream, name: openai, provider: openai, base_url: "https://api.openai.com/v1/"}
---
{kind: Tenant, name: acme, time_zone: Europe/Berlin, log_percent: 2.50, shows: false}
---
kind: Endpoint
name: chat
deployments:
- {model: gpt-4o-mini, upstream: openai, share: 100, context_tokens: 64000}
- {model: gpt-4o, upstream: openai, share: 0}
routing:
  retries: 0
  first_byte_timeout: 20s
  shadow: {deployment: openai/gpt-4o, percent: 10, daily_usd: 5}
  rules:
  - {deployments: [openai/gpt-4o-mini], tenants: [acme], max_input: 100}
"""


def test_upstreams_and_routing_are_applied_once_and_then_changed(pilotage: CommandLine) -> None:
    first = results(pilotage, "-f", write(pilotage, ROUTED))
    again = results(pilotage, "-f", write(pilotage, ROUTED))
    located = "{kind: Upstream, name: openai, location: us}"
    moved = results(pilotage, "-f", write(pilotage, located))
    swapped = (
        ROUTED.replace("share: 100", "share: 40")
        .replace("share: 0", "share: 60")
        .replace("shadow: {deployment: openai/gpt-4o, percent: 10, daily_usd: 5}", "shadow: null")
    )
    changed = results(pilotage, "-f", write(pilotage, swapped))
    back = results(pilotage, "-f", write(pilotage, ROUTED))

    assert set(first.values()) == {"created"}
    assert again == dict.fromkeys(first, "unchanged")
    assert moved == {"Upstream openai": "changed"}
    for outcome in (changed, back):  # the split and the shadow are each in the other's way once
        assert {name for name, result in outcome.items() if result == "changed"} == {
            "Endpoint chat"
        }
    shown = pilotage.json("endpoints", "show", "chat")
    assert [(item["model"], item["percent"]) for item in shown["deployments"]] == [
        ("openai/gpt-4o-mini", 100),
        ("openai/gpt-4o", 0),
    ]
    assert shown["deployments"][0]["context_tokens"] == 64000
    assert shown["routing"]["shadow"]["daily_usd"] == "5.00"
    upstream = pilotage.json("upstreams", "show", "openai")
    assert (upstream["location"], upstream["base_url"]) == ("us", "https://api.openai.com/v1")


REGISTRY = """\
{kind: Issuer, name: corp, url: https://login.example.com, audience: pilotage,
 roles: [{group: quants, role: viewer}, {group: quants, role: ml_engineer, project: default}]}
---
{kind: Model, name: chat}
---
{kind: ModelVersion, model: chat, version: 1.0.0, base_model: gemini-2.5-flash, tags: [eu],
 custom_metadata: {team: fraud}}
---
{kind: ModelVersion, model: chat, version: 1.1.0, base_model: gemini-2.5-flash, parent: chat@1.0.0}
---
{kind: Prompt, name: greeting, version: 1.0.0, text: "Greet {{ name }}.", labels: [production]}
---
{kind: Prompt, name: letter, version: 1.0.0, file: letter.prompt.md}
---
{kind: Upstream, name: gpu, provider: openai, base_url: "http://127.0.0.1:1/v1",
 accepts: confidential}
---
{kind: Key, name: ci, aliases: [chat], operations: [chat, embeddings]}
"""


def test_issuers_hosted_versions_and_prompts_are_applied_and_changed(pilotage: CommandLine) -> None:
    (pilotage.folder / "letter.prompt.md").write_text('---\nversion: "1.0.0"\n---\nWrite.\n')
    file = write(pilotage, REGISTRY)
    assert set(results(pilotage, "-f", file).values()) == {"created"}
    assert set(results(pilotage, "-f", file).values()) == {"unchanged"}
    later = REGISTRY.replace("role: viewer", "role: auditor").replace("[eu]", "[eu, us]")
    later = later.replace(", labels: [production]", "").replace(
        "accepts: confidential", "accepts: internal"
    )
    later += (
        "---\n{kind: Prompt, name: greeting, version: 1.1.0, "
        'text: "Hello {{ name }}.", labels: [production]}\n'
    )

    changed = results(pilotage, "-f", write(pilotage, later))

    assert {name for name, result in changed.items() if result != "unchanged"} == {
        "Issuer corp",
        "ModelVersion chat@1.0.0",
        "Upstream gpu",
        "Prompt greeting@1.1.0",
    }


def test_what_never_changes_is_refused_when_a_file_says_otherwise(pilotage: CommandLine) -> None:
    (pilotage.folder / "letter.prompt.md").write_text('---\nversion: "1.0.0"\n---\nWrite.\n')
    pilotage.ok("apply", "-f", write(pilotage, REGISTRY))
    refused = {
        ("aliases: [chat]", "aliases: [other]"): "aliases: it is there already, with ['chat']",
        ("1.0.0, base_model: gemini-2.5-flash", "1.0.0, base_model: g"): "base_model: it is there",
        ("Greet {{ name }}.", "Hello."): "it is there already and says something else",
        ("name: letter, version: 1.0.0", "name: letter, version: 2.0.0"): "holds letter@1.0.0",
    }
    for (old, new), problem in refused.items():
        said = pilotage("plan", "-f", write(pilotage, REGISTRY.replace(old, new)))

        assert (said.code, problem in said.err) == (1, True), said


def test_two_documents_cannot_have_one_label(pilotage: CommandLine) -> None:
    prompts = [
        f"{{kind: Prompt, name: x, version: 1.{number}.0, text: a, labels: [live]}}"
        for number in range(2)
    ]

    said = pilotage("plan", "-f", write(pilotage, "\n---\n".join(prompts)))

    assert said.code == 1
    assert "document 2 (line 3): Prompt x@1.1.0: labels: x@1.0.0 has 'live' already" in said.err


def test_what_is_left_out_stays(pilotage: CommandLine) -> None:
    pilotage.ok("apply", "-f", write(pilotage, RELEASE))
    before = pilotage.json("endpoints", "show", "team/chat")
    bare = "{kind: Endpoint, name: team/chat}\n---\n{kind: Model, name: tiny}\n"

    assert set(results(pilotage, "-f", write(pilotage, bare, "bare.yaml")).values()) == {
        "unchanged"
    }
    limited = "{kind: Endpoint, name: team/chat, max_output_tokens: 64}"
    assert results(pilotage, "-f", write(pilotage, limited, "bare.yaml")) == {
        "Endpoint team/chat": "changed"
    }
    after = pilotage.json("endpoints", "show", "team/chat")
    assert (after["description"], after["max_output_tokens"]) == ("for trying", 64)
    assert after["deployments"] == before["deployments"]


def test_standard_input_is_a_file_of_the_working_folder(pilotage: CommandLine) -> None:
    text = RELEASE.replace("./tiny.gguf", "tiny.gguf")

    said = pilotage.ok("apply", "-f", "-", "--json", stdin=text)

    assert {item["result"] for item in said.json} == {"created"}


MISTAKES = {
    "unknown kind": ("kind: Endpont\nname: x", "'Endpont' is no kind", "Endpoint"),
    "no kind": ("name: x", "there is no kind", "Project"),
    "unknown field": ("kind: Model\nname: x\nnmae: y", "nmae is not a field", "name"),
    "missing field": ("kind: Model", "missing required field 'name'", ""),
    "bad name": ("{kind: Tenant, name: Not A Name}", "'Not A Name' is not a name", "lower-case"),
    "wrong type": ("{kind: Endpoint, name: x, max_output_tokens: many}", "max_output_tokens", ""),
    "twice": ("kind: Model\nname: x\nname: y", "name is there twice", ""),
    "no such file": (
        "{kind: ModelVersion, model: tiny, version: 2.0.0, file: gone.gguf}",
        "file: gone.gguf is not a file",
        "",
    ),
    "no file": ("{kind: ModelVersion, model: tiny, version: 2.0.0}", "name a file, a package", ""),
    "two files": (
        "{kind: ModelVersion, model: a, version: 2.0.0, file: tiny.gguf, package: smollm2}",
        "either a file or a package",
        "",
    ),
    "more of a package": (
        "{kind: ModelVersion, model: smollm2, version: 1.0.0, package: smollm2, tags: [eu]}",
        "everything else that is said of it comes with it",
        "",
    ),
    "no parent": (
        (
            "{kind: ModelVersion, model: m, version: 2.0.0, base_model: g, parent: m@1.0.0}"
            "\n---\n{kind: Model, name: m}"
        ),
        "parent: there is no version 'm@1.0.0'",
        "",
    ),
    "a prompt of nothing": ("{kind: Prompt, name: x, version: 1.0.0}", "has text or messages", ""),
    "a prompt twice": (
        "{kind: Prompt, name: x, version: 1.0.0, text: a, file: x.prompt.md}",
        "has text or messages",
        "",
    ),
    "no prompt file": (
        "{kind: Prompt, name: x, version: 1.0.0, file: x.prompt.md}",
        "x.prompt.md does not exist",
        "",
    ),
    "a broken template": (
        "{kind: Prompt, name: x, version: 1.0.0, text: 'Hello {{ 1 }}.'}",
        "after '{{' comes ' 1 }}.', not NAME",
        "",
    ),
    "no role of a group": (
        "{kind: Issuer, name: x, url: https://a, audience: b, roles: [{group: g, role: boss}]}",
        "roles: 'boss' is none of viewer",
        "",
    ),
    "an issuer of a project": (
        "{kind: Issuer, name: x, url: https://a, audience: b, project: default}",
        "belongs to none",
        "",
    ),
    "no operation": ("{kind: Key, name: x, operations: [fly]}", "'fly' is none of chat", ""),
    "no class": ("{kind: Upstream, name: x, accepts: all}", "accepts: 'all' is none of", ""),
    "bad version": (
        "{kind: ModelVersion, model: tiny, version: 1.0, file: tiny.gguf}",
        "not a semantic version: '1.0'",
        "",
    ),
    "unknown package": (
        "{kind: ModelVersion, model: nope, version: 1.0.0, package: nope}",
        "package: there is no 'nope'",
        "smollm2",
    ),
    "other version of a package": (
        "{kind: ModelVersion, model: smollm2, version: 9.0.0, package: smollm2}",
        "package: smollm2 is smollm2@1.0.0",
        "",
    ),
    "no such model": (
        "{kind: ModelVersion, model: ghost, version: 1.0.0, file: tiny.gguf}",
        "there is no model 'ghost'",
        "kind Model",
    ),
    "half a price": ("{kind: Price, model: x, input: 1}", "input and output, or is free", ""),
    "no rate": ("{kind: Price, model: x, input: 1e3, output: 1}", "input: '1e3' is no rate", ""),
    "zero": ("{kind: Price, model: x, input: 0, output: 0}", "free: true goes with", ""),
    "bad time": ("{kind: Price, model: x, free: true, from: soon}", "'soon'", ""),
    "no share": (
        "{kind: Endpoint, name: x, deployments: [{model: a@1.0.0}, {model: b@1.0.0}]}",
        "a@1.0.0 has no share",
        "",
    ),
    "bad sum": (
        (
            "{kind: Endpoint, name: x, deployments: "
            "[{model: a@1.0.0, share: 50}, {model: b@1.0.0, share: 60}]}"
        ),
        "the shares sum to 110, not 100",
        "",
    ),
    "not a number": (
        "{kind: Endpoint, name: x, deployments: [{model: a@1.0.0, share: NaN}]}",
        "share",
        "",
    ),
    "no version": (
        "{kind: Endpoint, name: x, deployments: [{model: a}]}",
        "'a' names no version",
        "",
    ),
    "unknown deployment field": (
        "{kind: Endpoint, name: x, deployments: [{model: a@1.0.0, weight: 5}]}",
        "deployments[0]",
        "",
    ),
    "undeployable": (
        "{kind: Endpoint, name: x, deployments: [{model: ghost@1.0.0}]}",
        "there is no version 'ghost@1.0.0'",
        "ModelVersion",
    ),
    "no upstream": (
        "{kind: Endpoint, name: x, deployments: [{model: gpt-4o, upstream: openai}]}",
        "there is no upstream 'openai'",
        "kind Upstream",
    ),
    "half an upstream": ("{kind: Upstream, name: x, location: eu}", "provider and base_url", ""),
    "bad provider": ("{kind: Upstream, name: x, provider: acme}", "'acme' is none of openai", ""),
    "bad address": ("{kind: Upstream, name: x, base_url: 'ftp://a'}", "base_url", "https://HOST"),
    "a secret": ("{kind: Upstream, name: x, secret: sk-123456}", "secret: secret: The", "env:NAME"),
    "bad policy": (
        "{kind: Endpoint, name: x, routing: {policy: best}}",
        "routing.policy: 'best' is none of weighted",
        "",
    ),
    "unknown fallback": (
        "{kind: Endpoint, name: x, routing: {fallbacks: [openai/gpt-4o]}}",
        "routing.fallbacks: there is no deployment 'openai/gpt-4o'",
        "UPSTREAM/MODEL",
    ),
    "no tenant of a rule": (
        (
            "{kind: Endpoint, name: x, deployments: [{model: tiny@1.0.0}], "
            "routing: {rules: [{deployments: [tiny@1.0.0], tenants: [nobody]}]}}"
            "\n---\n{kind: ModelVersion, model: tiny, version: 1.0.0, file: tiny.gguf}"
        ),
        "routing.rules: there is no tenant 'nobody'",
        "kind Tenant",
    ),
    "bad region": ("{kind: Tenant, name: x, regions: [Europe]}", "'Europe' is no region", "eu"),
    "bad data class": ("{kind: Tenant, name: x, data_class: top}", "'top' is none of public", ""),
    "no such project": (
        "{kind: Tenant, name: x, project: nowhere}",
        "there is no project 'nowhere'",
        "pilotage projects create",
    ),
    "no such tenant": ("{kind: Key, name: x, tenant: nobody}", "there is no tenant 'nobody'", ""),
    "bad duration": ("{kind: Key, name: x, expires: soon}", "not a duration: 'soon'", ""),
    "project in a project": ("{kind: Project, name: x, project: y}", "belongs to none", ""),
    "two of one": ("{kind: Tenant, name: acme}", "it is in", ""),
    "deep": ("{kind: Model, name: " + "[" * 12 + "]" * 12 + "}", "nested too deeply", ""),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> CommandLine:
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copy(tiny_gguf, folder / "tiny.gguf")
    made = CommandLine(folder)
    made.ok("projects", "list")
    return made


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_written(shared: CommandLine, mistake: str) -> None:
    text, problem, hint = MISTAKES[mistake]
    before = count_revisions(shared)
    good = "{kind: Tenant, name: acme}\n---\n{kind: Model, name: tiny}\n---\n"

    said = shared("apply", "-f", write(shared, good + text))

    assert said.code == 1
    line, *rest = said.err.splitlines()
    assert line.startswith("error: release.yaml, document 3 (line 5): ")
    assert problem in line
    assert hint in "".join(rest)
    assert len(rest) <= 1
    assert said.out == ""
    assert count_revisions(shared) == before > 0


def count_revisions(pilotage: CommandLine) -> int:
    with closing(sqlite3.connect(pilotage.data / "pilotage.db")) as db:
        (count,) = db.execute("SELECT count(*) FROM revision").fetchone()
    return int(count)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1", "release.yaml, line"),
        ("", "There is no document"),
        ("# nothing\n---\n", "There is no document"),
        ("- a\n- b", "there is no kind"),
        ("just words", "there is no kind"),
    ],
)
def test_what_is_no_document_is_told(shared: CommandLine, text: str, problem: str) -> None:
    said = shared("apply", "-f", write(shared, text))

    assert said.code == 1
    assert problem in said.err
    assert "Traceback" not in said.err


def test_a_file_that_is_not_there_is_told(shared: CommandLine) -> None:
    said = shared("apply", "-f", "gone.yaml")

    assert (said.code, said.err.splitlines()[0]) == (
        1,
        "error: gone.yaml cannot be read: No such file or directory.",
    )


def test_a_file_that_is_no_model_stops_everything_else(pilotage: CommandLine) -> None:
    (pilotage.folder / "tiny.gguf").write_bytes(b"GIF89a" * 100)

    said = pilotage("apply", "-f", write(pilotage, RELEASE))

    assert said.code == 1
    assert "document 5 (line 14): ModelVersion tiny@1.0.0" in said.err
    assert pilotage.json("models", "list") == []
    assert pilotage.json("endpoints", "list") == []
    assert pilotage.json("prices", "list") == []


def test_a_version_never_changes(pilotage: CommandLine, tiny_gguf: Path) -> None:
    pilotage.ok("apply", "-f", write(pilotage, RELEASE))
    relicensed = pilotage(
        "apply", "-f", write(pilotage, RELEASE.replace("license: MIT", "license: GPL-3.0"))
    )
    (pilotage.folder / "tiny.gguf").write_bytes(tiny_gguf.read_bytes() + b"\0")
    replaced = pilotage("apply", "-f", write(pilotage, RELEASE))

    assert (relicensed.code, replaced.code) == (1, 1)
    assert "license: it is there already, with 'MIT'" in relicensed.err
    assert "ModelVersion tiny@1.0.0: it is there already, made of another file" in replaced.err


def test_the_examples_are_applied(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilotage = CommandLine(tmp_path)
    names = ("release", "rollout", "governance", "notices", "alerts", "costs")
    examples = [f"{name}.yaml" for name in names]
    for name in examples:
        shutil.copy(ROOT / "examples" / name, tmp_path)
    shutil.copy(tiny_gguf, tmp_path / "support.gguf")
    provide_package(pilotage, tiny_gguf, monkeypatch)
    files = [word for name in examples for word in ("-f", name)]
    first = results(pilotage, *files)

    changed = {name for name, result in first.items() if result == "changed"}
    assert changed == {"GatePolicy production"}  # there is always one
    assert set(first.values()) == {"created", "changed", "unchanged"}
    assert results(pilotage, *files) == dict.fromkeys(first, "unchanged")
    assert {name.partition(" ")[0] for name in first} == set(KINDS) - {"Project"}
