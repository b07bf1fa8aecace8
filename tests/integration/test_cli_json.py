"""Every command that shows something shows it as JSON, story by story."""

import shutil
from pathlib import Path

import pytest

from command_line import CommandLine, list_commands, provide_package

STORIES = {
    "start": """
        version | config check --all | config show | init | doctor | migrate
        projects create research | projects list | tenants create acme | tenants list
        tenants change acme --region eu --no-features | tenants show acme
        gateways create paris | gateways list | gateways revoke paris
        prices set tiny --input 0.05 --output 0.15 | prices list | prices show tiny@1.0.0
        limits set monthly --tenant acme --usd 500/month | limits list | limits show monthly
        limits delete monthly | tenants delete acme | usage | metrics | metrics --machine
        top
        query VALUES(1)
    """,
    "models": """
        models pull | models add tiny.gguf --name tiny
        models add tiny.gguf --name tiny --version 1.1.0
        models list | models show tiny | models show tiny@1.1.0 | models versions tiny
        models register tiny@1.2.0 --base llama --parent tiny@1.1.0 --tag eu --set team=fraud
        models change tiny@1.2.0 --display-name Tiny | models show tiny@1.2.0
        models search tin --tag eu | models deprecate tiny@1.0.0 old --use tiny@1.1.0
        models evidence add tiny@1.1.0 accuracy=0.9 latency_p95=234.5ms --run eval-7
        models evidence list tiny@1.1.0 | models compare tiny 1.0.0 1.1.0
        models lineage tiny@1.1.0 | models card tiny@1.1.0
        models push pushed@1.0.0 tiny.gguf | blobs gc --dry-run
        operations list | operations show OPERATION
        models delete tiny@1.2.0 | models delete tiny@1.1.0 | models delete tiny
    """,
    "data": """
        datasets create asked | datasets push asked@1.0.0 --train asked.jsonl | datasets list
        datasets show asked@1.0.0 | datasets diff asked@1.0.0 1.0.0
        datasets export asked@1.0.0 out | datasets release asked@1.0.0 golden
        datasets retain asked@golden --hold why | datasets create other | datasets delete other
        prompts create greeting --version 1.0.0 --text Hello. | prompts list
        prompts show greeting@1.0.0 | prompts tag greeting@1.0.0 live
        prompts render greeting@live | prompts diff greeting@1.0.0 1.0.0
        prompts untag greeting live | prompts import folder --dry-run
        prompts delete greeting@1.0.0
    """,
    "traffic": """
        models add tiny.gguf --name tiny | models add tiny.gguf --name tiny --version 1.1.0
        endpoints create chat --label team=help --dedicated --region eu
        endpoints list --label team=help
        endpoints deploy chat tiny@1.0.0 | endpoints deploy chat tiny@1.1.0
        endpoints split chat 1.0.0=90 1.1.0=10 | endpoints list | endpoints show chat
        endpoints scale chat tiny@1.1.0 --min 0 --idle-after 5m | endpoints health chat
        endpoints warm chat tiny@1.1.0 --keep 1m
        upstreams create gpu --preset vllm | upstreams change gpu --location eu | upstreams list
        upstreams show gpu | endpoints deploy chat --upstream gpu --model llama
        endpoints route chat --fallback llama | endpoints undeploy chat gpu/llama --force
        upstreams delete gpu | traffic tail --no-follow
        endpoints undeploy chat tiny@1.0.0 --force | endpoints delete chat --force
        plan -f more.yaml --drift | apply -f more.yaml
    """,
    "rollouts": """
        upstreams create gpu --preset vllm | endpoints create chat
        endpoints deploy chat --upstream gpu --model small
        endpoints deploy chat --upstream gpu --model large
        prices set small --free | prices set large --free
        replay samples chat | replay list chat | replay shadows chat --window 1d
        rollout plan chat gpu/large --step 5%,at_least=10m --step 50%,approval
        rollout start chat gpu/large --without cost --reason wanted | rollout list
        rollout list --endpoint chat | rollout show chat --looks | rollout watch chat
        rollout hold chat --reason away | rollout resume chat --reason back
        rollout rollback chat --reason complaints | rollout show ROLLOUT | rollout list
        rollout start chat gpu/large --strategy blue_green --keep-warm 1h --reason again
        rollout rollback chat --reason no
    """,
    "alerts": """
        alerts set slow p95_latency>2s --team ops --severity critical | alerts rules
        alerts set slow --disable --label service=chat | alerts rule slow
        alerts check error_rate>1% | alerts list | alerts export
        slos set chat --objective 99.9 --team ops | slos set chat --latency 2s | slos list
        slos show chat | slos delete chat | alerts delete slow
        drift show | drift references | quality --by version --window 7d | feedback list
    """,
    "costs": """
        cost price compute 0.71 --spot 0.21 | cost prices
        cost price network 0.12 --from 2026-01-01
        cost add 12.40 --kind network --source gcp --start 2026-03-01 --end 2026-04-01
        cost add --kind network --quantity 9 --source eu --start 2026-03-01 --end 2026-04-01
        cost entries | cost reverse COST | cost show | cost outlook | cost anomalies
        cost savings | cost models | cost check
        budgets set search --usd 500/month --at 50,90 | budgets list | budgets show search
        budgets delete search
        chargeback months
        chargeback export 2026-03 march.csv | chargeback export 2026-03 march.parquet
        chargeback reconcile 2026-03 march.csv --provider openai
    """,
    "people": """
        tenants create acme | keys create --tenant acme --name ci | keys list | keys rotate KEY
        keys revoke KEY | principals create ann | principals show ann | principals list
        principals whoami | roles grant ann auditor --project default | roles list
        credentials create ann | credentials list | credentials rotate CREDENTIAL
        credentials revoke CREDENTIAL | access review | principals disable ann
        principals enable ann | roles end ROLE | access revoke ann --reason left
        secrets list | secrets rotate --reason yearly
    """,
    "notices": """
        channels set on-call --kind log | channels list | channels show on-call
        channels test on-call | routes set page --kind page --match severity=error --to on-call
        routes list | routes show page | routes export | inhibitions list
        inhibitions set down --source rule=down --target rule=slow --equal alias
        inhibitions show down | inhibitions delete down | routes delete page
        channels delete on-call | notices list
        silences create --match alias=chat --for 2h --reason maintenance
        silences list | silences show SILENCE | silences end SILENCE
    """,
    "record": """
        models register chat@1.0.0 --base gemini | gates list
        gates set staging --check scan_format | gates show staging
        models add tiny.gguf --name tiny | models promote tiny@1.0.0 staging --dry-run
        release-policy show | release-policy set --approvals 1
        audit list | audit search chat | audit show 1 | audit checkpoint | audit verify
        holds place case-1 --reason trial | holds list | holds release case-1 --reason over
        as-of | backup archive.tar | calendar list | approvals list | decisions list
    """,
}
NAMED_BY = {  # what a list shows first or last, and the name that later steps have for it
    "keys list": ("KEY", -1),
    "silences list": ("SILENCE", 0),
    "operations list": ("OPERATION", 0),
    "cost entries": ("COST", 0),
    "roles list": ("ROLE", -1),
    "rollout list": ("ROLLOUT", 0),
    "credentials list": ("CREDENTIAL", -1),
}
ELSEWHERE = {
    "drift freeze": "test_drift_api",
    "replay show": "test_replays",
    "replay start": "test_replays",
    "rollout promote": "test_cli_rollouts",
    "drift reference": "test_drift_api",
    "drift thaw": "test_drift_api",
    "alerts show": "test_cli_alerts",
    "up": "test_cli_live",
    "chat": "test_cli_live",
    "operations cancel": "test_cli_live",
    "approvals": "test_cli_governance",
    "calendar": "test_cli_governance",
    "decisions": "test_cli_governance",
    "verify": "test_cli_governance",
    "audit check": "test_cli",
    "notices show": "test_cli_notices",
    "notices send": "test_cli_notices",
    "cost release": "test_cost_api",
    "tenants erase": "test_cli_backup",
    "restore": "test_cli_backup",
}
COMMANDS = list_commands()


def list_steps(story: str) -> list[str]:
    """Return the commands of a story."""
    steps = (step.strip() for line in STORIES[story].splitlines() for step in line.split("|"))
    return [step for step in steps if step]


@pytest.mark.parametrize("story", STORIES)
def test_what_a_command_shows_it_shows_as_json(
    story: str, tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilotage = CommandLine(tmp_path)
    provide_package(pilotage, tiny_gguf, monkeypatch)
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")
    (tmp_path / "more.yaml").write_text("kind: Tenant\nname: more\n")
    (tmp_path / "asked.jsonl").write_text('{"question": "why?"}\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/hello.prompt.yaml").write_text('version: "1.0.0"\ntext: Hello.\n')
    known: dict[str, str] = {}
    for step in list_steps(story):
        words = [known.get(word, word) for word in step.split()]

        value = pilotage.json(*words)

        if {"list", "show", "versions"} & set(words):
            assert pilotage.ok(*words).out.strip(), step
        if step in NAMED_BY:
            name, place = NAMED_BY[step]
            known[name] = value[place]["id"]


def test_every_command_has_json_and_is_in_a_story() -> None:
    steps = [step for story in STORIES for step in list_steps(story)]
    shown = {
        command
        for command in COMMANDS
        if any(f"{step} ".startswith(f"{command} ") for step in steps)
    }
    elsewhere = {
        command for command in COMMANDS if {command, command.partition(" ")[0]} & set(ELSEWHERE)
    }
    with_json = {command for command in COMMANDS if "--json" in COMMANDS[command]}

    assert with_json - shown - elsewhere == set()
    assert set(COMMANDS) - with_json == {"audit export", "audit prove", "chat", "gateway", "up"}
