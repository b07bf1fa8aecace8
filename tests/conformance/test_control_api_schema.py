"""The control API against its own OpenAPI document: requests that schemathesis makes of it.

Whatever is sent, a reply is never a 5xx, has a status and a content type that the document names,
and a body that is what the document says; half of the requests name objects that are there.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import openapi
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from system import add_model, running
from tiny_model import make_tiny_gguf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = 20
TIMEOUT_S = 30
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
THERE = {
    "project_name": "default",
    "tenant": "default",
    "model": "tiny",
    "version": "1.0.0",
    "endpoint": "chat",
    "gateway": "paris",
}


async def test_every_reply_is_what_the_document_says(tmp_path: Path) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf")
    async with running(tmp_path / "data") as system:
        async with system.control() as control:
            await add_model(control, gguf, "tiny", "1.0.0")
            await control.post("/endpoints", {"name": "chat"})
            await control.post("/gateways", {"name": "paris"})
        found, asked = await asyncio.to_thread(
            ask_everything, system.server.control_url, system.credentials.admin
        )
    assert not found, f"{len(found)}:\n" + "\n\n".join(found[:40])
    assert asked > 100 * EXAMPLES // 2


def ask_everything(url: str, credential: str) -> tuple[list[str], int]:
    """Ask every operation many times; return what is wrong, and how many requests there were."""
    headers = {"authorization": f"Bearer {credential}"}
    schema = openapi.from_url(f"{url}/api/v1/openapi.json", headers=headers)
    found: list[str] = []
    asked = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), is_there=st.booleans())
        def ask(case: schemathesis.Case[Any], is_there: bool) -> None:
            nonlocal asked
            asked += 1
            name_objects(case.path_parameters, is_there)
            try:
                case.call_and_validate(headers=headers, checks=CHECKS, timeout=TIMEOUT_S)
            except FailureGroup as wrong:
                found.extend(f"{case.as_curl_command()}\n{item}" for item in wrong.exceptions)

        ask()
    return found, asked


def name_objects(parameters: dict[str, Any] | None, is_there: bool) -> None:
    """Put the names of objects that are there into a path."""
    if parameters and is_there:
        parameters.update({name: THERE[name] for name in parameters if name in THERE})
