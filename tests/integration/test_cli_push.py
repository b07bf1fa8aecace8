"""``pilotage models push`` and ``pilotage datasets``: what is sent, what is not, what is told."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import CommandLine
from tiny_adapter import make_adapter


@pytest.fixture
def pilotage(tmp_path: Path) -> CommandLine:
    folder = tmp_path / "model"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("not of the model")
    save_file({"a": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return CommandLine(tmp_path)


def list_blobs(pilotage: CommandLine) -> dict[str, int]:
    blobs = (pilotage.data / "blobs").rglob("*")
    return {path.name: path.stat().st_ino for path in blobs if path.is_file()}


def test_a_second_push_sends_only_what_is_new(pilotage: CommandLine) -> None:
    first = pilotage.json("models", "push", "chat@1.0.0", "model")
    before = list_blobs(pilotage)
    again = pilotage.json("models", "push", "chat@1.0.0", "model")
    (pilotage.folder / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    second = pilotage.json("models", "push", "chat@1.1.0", "model")
    after = list_blobs(pilotage)

    weights = hashlib.sha256((pilotage.folder / "model/model.safetensors").read_bytes()).hexdigest()
    assert (first["is_new"], again["is_new"], second["is_new"]) == (True, False, True)
    assert first["artifact_sha256"] == again["artifact_sha256"] != second["artifact_sha256"]
    assert len(before) == 3  # two files and a manifest: nothing of .git
    assert len(after) == 5
    assert after[weights] == before[weights]  # the very file: it was not written again


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("chat", "model"), 2, "names no version"),
        (("chat@1.0", "model"), 2, "not a semantic version"),
        (("chat@1.0.0", "nothing"), 2, "is not there"),
        (("chat@1.0.0", "empty"), 2, "no files in"),
        (("chat@1.0.0", "linked"), 2, "is a link"),
        (("chat@1.0.0", "model/config.json"), 1, "not a model that can be read"),
    ],
)
def test_what_cannot_be_pushed_is_told(
    pilotage: CommandLine, words: tuple[str, str], code: int, told: str
) -> None:
    (pilotage.folder / "empty").mkdir()
    (pilotage.folder / "linked").mkdir()
    (pilotage.folder / "linked" / "a").symlink_to(pilotage.folder / "model" / "config.json")

    said = pilotage("models", "push", *words)

    assert said.code == code, said
    assert told in said.err
    assert "Traceback" not in said.err


def test_links_are_followed_when_told(pilotage: CommandLine) -> None:
    snapshot = pilotage.folder / "snapshot"
    snapshot.mkdir()
    for file in ("model.safetensors", "config.json"):
        (snapshot / file).symlink_to(pilotage.folder / "model" / file)

    made = pilotage.json("models", "push", "chat@1.0.0", "snapshot", "--follow-links")
    same = pilotage.json("models", "push", "chat@1.1.0", "model")

    assert made["artifact_sha256"] == same["artifact_sha256"]


def test_an_adapter_names_what_it_was_tuned_on(pilotage: CommandLine, tiny_gguf: Path) -> None:
    make_adapter(tiny_gguf, pilotage.folder / "lora.gguf", seed=1)
    base = pilotage.json("models", "push", "tiny@1.0.0", str(tiny_gguf))
    refused = pilotage("models", "push", "tuned@1.0.0", "lora.gguf")
    made = pilotage.json("models", "push", "tuned@1.0.0", "lora.gguf", "--parent", "tiny@1.0.0")

    assert refused.code == 1
    assert "--parent NAME@VERSION" in refused.err
    assert made["parent_version_id"] == base["id"]
    assert pilotage.json("models", "show", "tuned@1.0.0")["artifact"]["info"]["kind"] == "adapter"


def test_a_dataset_goes_in_and_comes_out_the_same(pilotage: CommandLine) -> None:
    train = "".join(f'{{"q": {number}}}\n' for number in range(20))
    (pilotage.folder / "train.jsonl").write_text(train)
    (pilotage.folder / "test.jsonl").write_text('{"q": 1}\n')
    words = ("datasets", "push", "qs@1.0.0", "--train", "train.jsonl", "--test", "test.jsonl")

    refused = pilotage(*words)
    made = pilotage.json(*words, "--allow-leaks", "a smoke test")
    exported = pilotage.ok("datasets", "export", "qs@1.0.0", "out")
    full = pilotage("datasets", "export", "qs@1.0.0", "out")

    assert refused.code == 1
    assert "1 in test and train" in refused.err
    assert made["leaks"] == {"test and train": 1}
    assert "2 files" in exported.out
    assert (pilotage.folder / "out/train/train.jsonl").read_text() == train
    assert json.loads((pilotage.folder / "out/test/test.jsonl").read_text()) == {"q": 1}
    assert (full.code, "not empty" in full.err) == (2, True)
    assert "questions" not in pilotage.ok("datasets", "show", "qs").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("push", "qs"), "names no version"),
        (("push", "qs@1.0.0"), "nothing to push"),
        (("push", "qs@1.0.0", "--train", "model/config.json"), "no files of one format"),
        (("push", "qs@1.0.0", "--train", "a.jsonl"), "is not there"),
        (("export", "qs", "out"), "names no version"),
    ],
)
def test_a_dataset_that_cannot_be_is_told(
    pilotage: CommandLine, words: tuple[str, ...], told: str
) -> None:
    said = pilotage("datasets", *words)
    assert said.code == 2
    assert told in said.err
