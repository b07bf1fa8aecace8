"""No prompt is written anywhere: a marker in every kind of request is found in no file."""

from pathlib import Path

from system import add_model, ask, poll, running, serve

MARKER = "zebra-marker-7f3a"
NAME = "lion-marker-91bc"  # a model that nobody published: on record, but no label of a metric


async def test_no_prompt_and_no_secret_is_in_any_file_but_their_own(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    async with running(tmp_path / "data", PILOTAGE_LOG_LEVEL="debug") as system:
        async with system.control() as control:
            await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
            await control.put("/tenants/default", {"log_percent": 100})
        secret, admin = system.credentials.api_key, system.credentials.admin
        async with system.http() as http:
            url = "/v1/chat/completions"
            whole = await http.post(url, json=ask("chat", MARKER))
            assert whole.status_code == 200
            streamed = await http.post(url, json=ask("chat", MARKER, stream=True))
            assert "[DONE]" in streamed.text
            overlong = await http.post(url, json=ask("chat", f"{MARKER} " * 2000))
            assert overlong.status_code == 400
            unknown = await http.post(url, json=ask("other", MARKER))
            assert unknown.status_code == 404
            broken = await http.post(
                url, content=b'{"model": "chat", "messages": "' + MARKER.encode()
            )
            assert broken.status_code == 400
            odd = ask(
                "chat", MARKER, response_format={"type": "json_object", "schema": {"x": MARKER}}
            )
            await http.post(url, json=odd)
            tools = [
                {"type": "function", "function": {"name": MARKER, "parameters": {"bad": MARKER}}}
            ]
            await http.post(url, json=ask("chat", MARKER, tools=tools))
            named = await http.post(url, json=ask(NAME, MARKER))
            assert named.status_code == 404
            metrics = (await http.get("/metrics")).text
            assert 'pilotage_calls_total{slot="gateway-0",alias="unknown"' in metrics
            assert MARKER not in metrics
            assert NAME not in metrics
        async with system.control() as control:
            await poll(
                lambda: control.get("/usage", by="tenant"),
                lambda reply: sum(row["calls"] for row in reply["items"]) >= 6,
            )
    log = (tmp_path / "data" / "logs" / "requests-gateway-0.jsonl").read_text()
    assert len(log.splitlines()) >= 6
    assert NAME not in log
    found = [
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and "blobs" not in path.parts and MARKER.encode() in path.read_bytes()
    ]
    assert found == []
    for text in (secret, admin):
        holders = [
            path.name
            for path in tmp_path.rglob("*")
            if path.is_file() and text.encode() in path.read_bytes()
        ]
        assert holders == ["credentials.toml"]
