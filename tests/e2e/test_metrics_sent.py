"""A collector gets the numbers of the control plane and of its gateways, as OTLP."""

from pathlib import Path
from typing import Any

import pytest

from gateway_harness import until
from otlp_receiver import OtlpReceiver
from system import add_model, ask, running, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_both_planes_tell_a_collector_what_their_pages_show(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    with OtlpReceiver() as collector:
        environment = {
            "PILOTAGE_TELEMETRY_OTLP_URL": collector.url,
            "PILOTAGE_TELEMETRY_METRICS_EVERY": "1s",
        }
        async with running(tmp_path / "data", **environment) as system:
            async with system.control() as control:
                await serve(control, "chat", await add_model(control, tiny_gguf, "tiny", "1.0.0"))
            async with system.http() as http:
                for _ in range(3):
                    reply = await http.post("/v1/chat/completions", json=ask("chat", max_tokens=1))
                    assert reply.status_code == 200, reply.text

            def find(process: str, name: str, kind: str) -> list[dict[str, Any]]:
                found = [
                    metric[kind]["dataPoints"]
                    for teller, metric in list(collector.metrics)
                    if (teller, metric["name"]) == (process, name)
                ]
                return found[-1] if found else []

            def is_told() -> bool:
                calls = find("pilotage-gateway", "pilotage_calls_total", "sum")
                counted = find("pilotage-control", "pilotage_request_count", "gauge")
                return any(point["asDouble"] == 3 for point in calls) and any(
                    point["asDouble"] == 3 for point in counted
                )

            await until(is_told, "both planes' numbers", 30)
            (duration,) = find(
                "pilotage-gateway", "gen_ai_client_operation_duration_seconds", "histogram"
            )

    assert duration["count"] == "3"
    assert sum(map(int, duration["bucketCounts"])) == 3
    assert len(duration["bucketCounts"]) == len(duration["explicitBounds"]) + 1
    assert set(collector.paths) <= {"/v1/metrics", "/v1/traces"}
