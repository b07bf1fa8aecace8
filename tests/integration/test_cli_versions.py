"""Versions by command: register, measure, compare, search, describe, draw where they come from."""

from pathlib import Path

import pytest

from command_line import CommandLine


@pytest.fixture(scope="module")
def pilotage(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Return a command line whose registry has three versions of a model, two of them measured."""
    made = CommandLine(tmp_path_factory.mktemp("versions"))
    for words in (
        "register chat@1.0.0 --base gemini-2.0-flash --tag eu --description tuned",
        "register chat@1.1.0 --uri gs://m/2 --parent chat@1.0.0 --tag eu --tag routing",
        "register chat@2.0.0-rc.1 --uri gs://m/3 --parent chat@1.1.0 --source custom",
        "evidence add chat@1.0.0 accuracy=0.92 latency_p95=234.5ms --run eval-1 --data dsv-1",
        "evidence add chat@1.1.0 accuracy=0.966 latency_p95=175.9ms --run eval-2 --data dsv-1",
        "evidence add chat@1.1.0 cost_per_1m_tokens=0.4USD --cost",
    ):
        made.ok("models", *words.split())
    return made


def test_two_versions_are_compared_in_a_table_and_a_sentence(pilotage: CommandLine) -> None:
    said = pilotage.ok("models", "compare", "chat", "1.0.0", "1.1.0").out.splitlines()
    found = pilotage.json("models", "compare", "chat", "1.1.0", "1.0.0")

    assert said[-1] == (
        "version_b is 5% more accurate and 25% faster; missing for version_a: cost_per_1m_tokens"
    )
    lines = {line.split()[0]: line for line in said[:-1] if line}
    assert "+4.6 points" in lines["accuracy"]
    assert lines["accuracy"].count("+") == 2 + 2  # two numbers and a bar of two
    assert "-25.0 %  ++++++++++  better" in lines["latency_p95"]
    assert "missing" in lines["cost_per_1m_tokens"]
    assert set(found) == {
        "version_a",
        "version_b",
        "performance_diff",
        "cost_diff",
        "recommendation",
    }
    assert found["performance_diff"]["latency_p95"]["verdict"] == "worse"
    assert found["cost_diff"]["cost_per_1m_tokens"]["b"] is None


def test_raw_samples_become_a_number_with_its_interval(pilotage: CommandLine) -> None:
    (pilotage.folder / "hits.txt").write_text("1\n" * 81 + "0\n" * 182)
    words = "models evidence add chat@2.0.0-rc.1 --samples hits.txt --subject recall"
    (added,) = pilotage.json(*words.split())
    (passed,) = pilotage.json(
        *["models", "evidence", "add", "chat@2.0.0-rc.1", "--kind", "scan.security", "--passed"]
    )

    assert (added["n"], added["value"], added["note"]) == (
        263,
        "0.307984790875",
        "share of 263 samples",
    )
    assert float(added["low"]) < 0.308 < float(added["high"])
    assert len(added["hash"]) == 64
    assert (passed["passed"], passed["value"]) == (True, None)
    listed = pilotage.ok("models", "evidence", "list", "chat@2.0.0-rc.1").out
    assert "recall" in listed
    assert "passed" in listed


def test_versions_are_found_by_what_is_known_of_them(pilotage: CommandLine) -> None:
    def find(*words: str) -> list[str]:
        return [item["version"] for item in pilotage.json("models", "search", *words)]

    assert find() == ["2.0.0-rc.1", "1.1.0", "1.0.0"]
    assert find("--sort", "oldest", "--limit", "1") == ["1.0.0"]
    assert find("cha", "tun") == ["1.0.0"]
    assert find("--tag", "eu", "--tag", "routing") == ["1.1.0"]
    assert find("--metric", "accuracy>=0.92", "--sort", "-accuracy") == ["1.1.0", "1.0.0"]
    assert find("--source", "custom") == ["2.0.0-rc.1"]
    text = pilotage.ok("models", "search", "--sort", "accuracy").out
    assert text.splitlines()[1].endswith("0.92")
    assert "pilotage models search" in pilotage.ok("models", "search", "nothing-like-it").out


def test_a_lineage_is_drawn_as_a_tree_and_for_two_programs(pilotage: CommandLine) -> None:
    tree = pilotage.ok("models", "lineage", "chat@1.1.0").out
    mermaid = pilotage.ok("models", "lineage", "chat@1.1.0", "--format", "mermaid").out
    dot = pilotage.ok("models", "lineage", "chat@1.1.0", "--format", "dot", "--steps", "1").out

    assert tree == (
        "version chat@1.1.0\n"
        "came of\n"
        "  version chat@1.0.0 (parent_of)\n"
        "    base model gemini-2.0-flash (base_of)\n"
        "led to\n"
        "  version chat@2.0.0-rc.1 (parent_of)\n"
        "  evaluation eval-2 (evaluated_by)\n"
    )
    assert mermaid.startswith("flowchart LR\n")
    assert '"base model gemini-2.0-flash"' in mermaid
    assert mermaid.count("-->") == 4
    assert dot.startswith("digraph lineage {")
    assert dot.count("->") == 3
    assert "gemini" not in dot


def test_a_card_is_written_as_a_page_and_read_back(pilotage: CommandLine) -> None:
    empty = pilotage.ok("models", "card", "chat@1.0.0", "--markdown").out
    page = pilotage.folder / "card.md"
    page.write_text(empty.replace("## Limits\n", "## Limits\n\nNot for **credit** decisions.\n"))
    said = pilotage.ok("models", "card", "chat@1.0.0", "--edit", "card.md").out
    shown = pilotage.ok("models", "card", "chat@1.0.0").out
    page.write_text(shown)
    again = pilotage.json("models", "card", "chat@1.0.0", "--edit", "card.md")
    page.write_text("## Colour\nred\n")
    refused = pilotage("models", "card", "chat@1.0.0", "--edit", "card.md")

    assert "at revision 1; still to say: Intended use, Training data" in said
    assert "Not for **credit** decisions." in shown
    assert (again["rev"], again["limits"]) == (1, "Not for **credit** decisions.")
    assert (refused.code, "no part of a card" in refused.err) == (2, True)


def test_a_version_is_changed_and_deprecated(pilotage: CommandLine) -> None:
    pilotage.ok("models", "register", "old@1.0.0", "--uri", "gs://m/1", "--tag", "eu")
    changed = pilotage.json(
        *["models", "change", "old@1.0.0", "--display-name", "Old", "--set", "team=fraud"]
    )
    marked = pilotage.json("models", "deprecate", "old@1.0.0", "wrong data", "--use", "chat@1.0.0")

    assert (changed["tags"], changed["custom_metadata"]) == (["eu"], {"team": "fraud"})
    assert marked["deprecation_reason"] == "wrong data"
    assert "wrong data" in pilotage.ok("models", "show", "old@1.0.0").out
    assert "(deprecated)" in pilotage.ok("models", "search", "old").out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("register chat@1.3 --uri x", 1, "for example 1.0.0"),
        ("register chat --uri x", 1, "NAME@VERSION"),
        ("register chat@1.0.0+build --uri x", 1, "already"),
        ("register new@1.0.0", 1, "something that it runs"),
        ("register new@1.0.0 --uri x --source moon", 1, "se_darwin"),
        ("register new@1.0.0 --uri x --set nonsense", 2, "KEY=VALUE"),
        ("evidence add chat@1.0.0", 2, "nothing to add"),
        ("evidence add chat@1.0.0 accuracy", 2, "NAME=VALUE"),
        ("evidence add chat@1.0.0 --file gone.json", 2, "cannot be read"),
        ("compare chat 1.0.0 9.9.9", 1, "no version"),
        ("compare chat 1.0.0 1.1.0 --direction accuracy:up", 1, "NAME:higher"),
        ("lineage nothing:1", 1, "no model"),
        ("search --metric accuracy", 1, "accuracy>=0.9"),
        ("delete chat@1.0.0", 1, "came of"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(
    pilotage: CommandLine, words: str, code: int, told: str
) -> None:
    said = pilotage("models", *words.split())

    assert said.code == code
    assert told in " ".join(said.err.split())


def test_items_of_a_file_are_added_whole_or_not_at_all(
    pilotage: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "items.json"
    file.write_text('[{"kind": "eval.safety", "passed": true}, {"kind": "BAD"}]')
    before = pilotage.json("models", "evidence", "list", "chat@1.0.0")

    refused = pilotage("models", "evidence", "add", "chat@1.0.0", "--file", str(file))

    assert (refused.code, "no kind of evidence" in refused.err) == (1, True)
    assert pilotage.json("models", "evidence", "list", "chat@1.0.0") == before
