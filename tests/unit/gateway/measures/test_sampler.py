"""The sampler: what is kept of calls, sealed for their tenant, and what is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from made_calls import PROJECT, make_alias, make_arm, make_call
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.samples import SAMPLE, Sampled, Texts, decode_sample, decode_texts
from pilotage.core.snapshot import FULL_WEIGHT, TenantEntry
from pilotage.gateway.call import Call, Reply
from pilotage.gateway.measures.sampler import (
    LONGEST_OPEN_S,
    MOST_BYTES,
    MOST_WAITING,
    Sampler,
)
from pilotage.gateway.steps.observe import Observe
from pilotage.gateway.wire import completions
from pilotage.gateway.wire.door import Wire
from pilotage.gateway.wire.openai import CHAT
from pilotage.kit.clock import ManualClock
from pilotage.kit.sealing import make_key, make_letterbox, open_letter
from pilotage.kit.spool import SpoolWriter, open_spool
from pilotage.kit.spool_reader import is_held, read_records

KEY = make_key()
BOX = make_letterbox(KEY, 1, "ten_1", SAMPLE)
TOLD = "I am ada@example.org, IBAN DE89370400440532013000"
ASKED = {
    "model": "chat",
    "user": "ada",
    "stream": False,
    "temperature": 0.7,
    "metadata": {"customer": "ada"},
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "name": "Ada",
            "content": "I am ada@example.org, IBAN DE89370400440532013000",
        },
    ],
    "max_tokens": 9,
}
SAID = b'{"choices":[{"message":{"content":"Thank you, ada@example.org."}}]}'


class Rig:
    """A sampler whose spool lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.sampler = Sampler(self.open, self.clock)

    def open(self) -> SpoolWriter:
        return open_spool(self.folder, segment_bytes=1 << 20, reserve_bytes=0, sync="none")

    async def ask(
        self,
        asked: Any = ASKED,  # noqa: ANN401
        said: bytes = SAID,
        *,
        share: int = FULL_WEIGHT,
        box: str = BOX,
        data_class: str = "internal",
        call_id: str = "call_1",
        wire: Wire = CHAT,
        fails: bool = False,
    ) -> Call:
        tenant = TenantEntry(
            id="ten_1",
            name="acme",
            project_id=PROJECT,
            sample_share=share,
            sample_box=box,
            data_class=data_class,
        )
        body = json.dumps(asked).encode()
        call = make_call(
            make_alias(make_arm()), tenant=tenant, call_id=call_id, body=body, wire=wire
        )
        call.arm = make_arm()

        async def follow(call: Call) -> Reply:
            if fails:
                call.at_end(lambda: None)
                raise PilotageError("upstream_error")
            return Reply(body=said)

        async with call:
            await Observe(follow, ManualClock(), None, (), None, self.sampler)(call)
        return call

    def read(self) -> list[Sampled]:
        if not self.folder.exists():
            return []
        return [decode_sample(payload) for _, payload in read_records(self.folder, 0, 1_000)]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "samples")


def unseal(sample: Sampled) -> Texts:
    plain = open_letter(KEY, "ten_1", SAMPLE, sample.sample_id, sample.letter)
    return decode_texts(plain)


async def test_a_drawn_call_is_kept_with_tokens_and_sealed(rig: Rig) -> None:
    await rig.ask()
    await rig.sampler.tick()
    rig.sampler.close()
    [sample] = rig.read()
    assert (sample.call_id, sample.tenant_id, sample.alias) == ("call_1", "ten_1", "chat")
    assert (sample.version_id, sample.model) == ("ver_dep_a", "model-dep_a@1.0.0")
    assert unseal(sample) == Texts(
        body={
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "I am <EMAIL_1>, IBAN <IBAN_1>"},
            ],
            "max_tokens": 9,
        },
        answer="Thank you, <EMAIL_1>.",
    )
    stored = b"".join(path.read_bytes() for path in rig.folder.iterdir())
    for raw in (b"ada", b"Ada", b"brief", b"Thank", b"EMAIL", b"DE8937"):
        assert raw not in stored


@pytest.mark.parametrize(
    "more",
    [
        {"share": 0},
        {"box": ""},
        {"data_class": "restricted"},
        {"fails": True},
        {"wire": completions.COMPLETIONS, "asked": {"model": "chat", "prompt": "Hello"}},
        {"asked": ASKED | {"messages": [{"role": "user", "content": "x" * MOST_BYTES}]}},
        {"asked": ASKED | {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
        {"said": b"{}"},
    ],
)
async def test_other_calls_are_not_kept(rig: Rig, more: dict[str, Any]) -> None:
    call = await rig.ask(**more)
    rig.sampler.close()
    assert rig.read() == []
    assert (call.outcome is Outcome.OK) == (not more.get("fails"))


async def test_parts_of_text_and_tool_calls_are_kept(rig: Rig) -> None:
    parts = [{"type": "text", "text": "Hello"}]
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "0170 1234567"},
    ]
    await rig.ask(ASKED | {"messages": messages})
    rig.sampler.close()
    [sample] = rig.read()
    kept = unseal(sample).body["messages"]
    assert kept[0]["content"] == parts
    assert kept[1] == {"role": "assistant", "tool_calls": calls}
    assert kept[2] == {"role": "tool", "tool_call_id": "c1", "content": "<PHONE_1>"}


async def test_the_share_decides_by_the_calls_id(rig: Rig) -> None:
    for number in range(200):
        await rig.ask(share=2_500, call_id=f"call_{number}")
        await rig.sampler.tick()
    rig.sampler.close()
    assert 25 < len(rig.read()) < 80


async def test_more_than_are_kept_in_a_second_give_way(rig: Rig) -> None:
    for number in range(MOST_WAITING + 3):
        await rig.ask(call_id=f"call_{number}")
    rig.sampler.close()
    assert len(rig.read()) == MOST_WAITING
    assert rig.sampler.counts == {"kept": MOST_WAITING, "unfit": 0, "dropped": 3}


async def test_a_spool_is_let_go_of_again_and_again(rig: Rig) -> None:
    for number in range(3):
        await rig.ask(call_id=f"call_{number}")
        await rig.sampler.tick()
        assert is_held(rig.folder)
        rig.clock.advance(LONGEST_OPEN_S)
        await rig.sampler.tick()
        assert not is_held(rig.folder)
    assert len(list(rig.folder.glob("*.seg"))) == len(rig.read()) == 3


async def test_without_room_on_disk_calls_go_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> SpoolWriter:
        raise PilotageError("spool_full")

    sampler = Sampler(refuse, ManualClock())
    rig.sampler = sampler
    call = await rig.ask()
    await sampler.tick()
    sampler.close()
    assert (call.outcome, sampler.counts["dropped"]) == (Outcome.OK, 1)


async def test_what_cannot_be_sealed_is_left_out(rig: Rig) -> None:
    await rig.ask(box="1.zz")
    rig.sampler.close()
    assert (rig.read(), rig.sampler.counts["unfit"]) == ([], 1)
