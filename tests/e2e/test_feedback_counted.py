"""Feedback and measured texts, from a client's call to what an engineer sees of them."""

from pathlib import Path

import pytest

from system import add_model, ask, poll, running, serve

SECRET = "Zebrafink, who lives next door"


@pytest.mark.slow
async def test_what_is_said_of_an_answer_is_seen_beside_it(tmp_path: Path, tiny_gguf: Path) -> None:
    async with running(tmp_path / "data") as system, system.control() as control:
        await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
        tenant = await control.get("/tenants/default")
        asked = ("time_zone", "regions", "features", "data_class", "shows", "log_percent")
        settings = {name: tenant[name] for name in asked} | {
            "measure_percent": 100,
            "keeps_comments": True,
        }
        await control.put("/tenants/default", settings, rev=tenant["rev"])
        async with system.http() as http:
            reply = await http.post("/v1/chat/completions", json=ask("chat", "What is the sea?"))
            call = reply.headers["x-request-id"]
            for said in (
                {"score": 1, "label": "correct"},
                {"label": "grounded", "comment": SECRET},
            ):
                taken = await http.post("/v1/feedback", json={"request_id": call} | said)
                assert taken.status_code == 202, taken.text
                assert taken.json()["comment"] == ("kept" if "comment" in said else None)
            stranger = {"request_id": call[:-1] + ("0" if call[-1] != "0" else "4"), "score": 0}
            assert (await http.post("/v1/feedback", json=stranger)).status_code in (202, 400)
        page = await poll(
            lambda: control.get("/feedback", endpoint="chat"),
            lambda found: [item["state"] for item in found["items"]] == ["matched"] * 2,
        )
        assert {item["request_id"] for item in page["items"]} == {call}
        assert {item["model"] for item in page["items"]} == {"tiny@1.0.0"}
        assert [item["has_comment"] for item in page["items"]] == [False, True]
        assert [item["comment"] for item in page["items"]] == [None, None]
        page = await control.get("/feedback", endpoint="chat", comments=True)
        assert [item["comment"] for item in page["items"]] == [None, SECRET]
        at_rest = [*(tmp_path / "data").glob("*.db*"), *(tmp_path / "data" / "spool").rglob("*.*")]
        assert at_rest
        assert not [path for path in at_rest if SECRET.encode() in path.read_bytes()]
        quality = await control.get("/quality", by="alias,version")
        [found] = quality["items"]
        assert found["feedback_score"]["n"] == found["accuracy"]["n"] == 1
        assert (found["accuracy"]["value"], found["accuracy"]["low"] < 0.5) == (1.0, True)
        assert found["hallucination_rate"]["value"] == 0.0
        assert found["toxicity_score"] is None
        values = await poll(
            lambda: control.get("/metric-values", metrics="feedback_score,accuracy", alias="chat"),
            lambda found: len(found["items"]) == 2,
        )
        assert {item["value"] for item in values["items"]} == {1.0}
