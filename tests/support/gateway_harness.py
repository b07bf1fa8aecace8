"""A real gateway process on a data folder made by hand: no control plane, any upstream."""

import asyncio
import json
import os
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from pilotage.core.frames import Begun, Ended, Frame, decode_frame
from pilotage.core.ids import uuid_bytes
from pilotage.core.key_scopes import KEY_SCOPES, KeyScope, pack_scopes
from pilotage.core.prompt_table import PROMPTS, PublishedPrompt, pack_prompts
from pilotage.core.seeds import Seeds, encode_seeds
from pilotage.core.snapshot import (
    FULL_WEIGHT,
    SNAPSHOT_VERSION,
    AliasEntry,
    ArmEntry,
    Directory,
    KeyRecord,
    LimitEntry,
    Manifest,
    Routing,
    TenantEntry,
    UpstreamEntry,
    encode_directory,
    pack_digests,
    pack_keys,
)
from pilotage.core.usage import Rates
from pilotage.gateway.targets import ReplicaTarget, Targets, TargetsFile
from pilotage.kit.acks import read_ack
from pilotage.kit.clock import SystemClock
from pilotage.kit.config import Settings
from pilotage.kit.crypto import Signer, digest_secret, make_secret, open_signer
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.files import write_private
from pilotage.kit.spool_reader import read_records
from pilotage.publisher.folder import SnapshotFolder
from pilotage.runtime.handover import Handover

CLOCK = SystemClock()
# Child processes start three times as fast with compiled modules; some machines switch them off.
BYTECODE = {
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(Path(__file__).parents[2] / "build" / "pycache"),
}
PATIENCE_S = 15.0
LOOK_S = 0.005
SLOT = "gateway-0"
ALIAS = "chat"


async def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until something is true; fail, saying what was waited for."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience_s:g} s for {what}")
        await asyncio.sleep(LOOK_S)


def make_rates(input_usd: str = "0.50", output_usd: str = "1.50") -> Rates:
    """Return rates from USD per 10^6 tokens."""
    read, written = (round(float(usd) * 1e9) for usd in (input_usd, output_usd))
    return Rates(
        price_id="pri_1",
        input=read,
        output=written,
        cache_read=read,
        cache_write=read,
        reasoning=written,
    )


class World:
    """A data folder with one tenant, one key and one alias; weights and targets can be changed."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder(path).prepare()
        write_private(self.folder.seeds, encode_seeds(Seeds()))  # as a new control plane does
        self.signer: Signer = open_signer(self.folder.keys / "snapshot.key")
        self.snapshots = SnapshotFolder(self.folder.snapshots, self.signer)
        self.tenant = TenantEntry(
            id=CLOCK.new_id("ten"), name="acme", project_id=CLOCK.new_id("prj")
        )
        self.secret = make_secret("plt_live_")
        self.key_id = CLOCK.new_id("key")
        self.n = 0
        self.keys = [self.make_key(self.secret, self.key_id)]
        self.revoked: list[bytes] = []

    def make_key(self, secret: str, key_id: str, expires_at_us: int = 0) -> KeyRecord:
        """Return the record of a key of the tenant."""
        return KeyRecord(
            digest_secret(secret), uuid_bytes(key_id), uuid_bytes(self.tenant.id), expires_at_us
        )

    def publish(
        self,
        weights: dict[str, int] | None = None,
        max_age_s: float = 3600,
        max_output_tokens: int = 256,
        *,
        arms: Sequence[ArmEntry] = (),
        routing: Routing | None = None,
        more_aliases: Sequence[AliasEntry] = (),
        upstreams: Sequence[UpstreamEntry] = (),
        limits: Sequence[LimitEntry] = (),
        prompts: Sequence[PublishedPrompt] = (),
        scopes: Mapping[int, KeyScope] | None = None,
    ) -> int:
        """Publish the next Snapshot; weights are basis points by arm id.

        ``arms`` stand instead of those that the weights make.
        """
        arms = list(arms) or [
            ArmEntry(
                id=arm,
                weight=weight,
                version_id=f"ver_{arm}",
                model=f"model-{arm}@1.0.0",
                context_tokens=2048,
                rates=make_rates(),
            )
            for arm, weight in (weights or {"dep_a": FULL_WEIGHT}).items()
        ]
        alias = AliasEntry(
            project_id=self.tenant.project_id,
            name=ALIAS,
            created_at_us=CLOCK.now_us(),
            salt="salt",
            max_output_tokens=max_output_tokens,
            arms=arms,
            routing=routing or Routing(),
        )
        directory = Directory(
            tenants=[self.tenant],
            aliases=[alias, *more_aliases],
            upstreams=list(upstreams),
            limits=list(limits),
        )
        self.n += 1
        put, now_us = self.snapshots.put_section, CLOCK.now_us()
        sections = {
            "directory": put(encode_directory(directory)),
            "keys": put(pack_keys(self.keys)),
            "keys-delta": put(b""),
            "revoked": put(pack_digests(self.revoked)),
        }
        if scopes:
            sections[KEY_SCOPES] = put(pack_scopes(scopes))
        if prompts:
            sections[PROMPTS] = put(pack_prompts(prompts))
        manifest = Manifest(
            n=self.n,
            parent="",
            created_at_us=now_us,
            expires_at_us=now_us + round(max_age_s * 1e6),
            oldest_gateway=SNAPSHOT_VERSION,
            covers=self.n,
            sections=sections,
        )
        self.snapshots.put_manifest(manifest)
        return self.n

    def point(self, ports: dict[str, int]) -> None:
        """Say where the replica of each arm listens on 127.0.0.1."""
        replicas = [
            ReplicaTarget(
                id=f"{arm}.0", deployment_id=arm, host="127.0.0.1", port=port, key="upstream-key"
            )
            for arm, port in ports.items()
        ]
        TargetsFile(self.folder.targets).write(Targets(replicas=replicas))

    @property
    def spool(self) -> Path:
        """The spool of the gateway's slot."""
        return self.folder.spool / SLOT

    def frames(self, slot: str = SLOT) -> list[Frame]:
        """Return every frame in the spool of a slot."""
        spool = self.folder.spool / slot
        return [decode_frame(payload) for _, payload in read_records(spool, 0, 10_000_000)]

    def ends_by_call(self) -> dict[str, list[Ended]]:
        """Return the ends of every begun call."""
        calls: dict[str, list[Ended]] = {
            f.call_id: [] for f in self.frames() if isinstance(f, Begun)
        }
        for frame in self.frames():
            if isinstance(frame, Ended):
                calls[frame.call_id].append(frame)
        return calls


class GatewayProcess:
    """``python -m pilotage.runtime.gateway`` on a world's folder and a socket of its own.

    Processes of several slots may share a ``listener``, as those of one installation do.
    """

    def __init__(
        self,
        world: World,
        settings: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "pilotage.runtime.gateway"),
        *,
        slot: str = SLOT,
        listener: socket.socket | None = None,
    ) -> None:
        self.world = world
        self.slot = slot
        self.settings = msgspec.convert(settings or {}, Settings)
        self._environment = environment or {}
        self._program = program
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """The address of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    async def start(self, *, wait_ready: bool = True) -> None:
        """Start the process and wait until it serves the world's Snapshot."""
        handover = Handover(
            settings=self.settings,
            data_path=str(self.world.folder.path),
            parent_pid=os.getpid(),
            listen_fd=self._listener.fileno(),
            slot=self.slot,
            public_key=self.world.signer.public.hex(),
        )
        with (self.world.folder.logs / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._program,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                pass_fds=[self._listener.fileno()],
                start_new_session=True,
                env={**os.environ, **BYTECODE, **self._environment},
            )
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(msgspec.json.encode(handover) + b"\n")
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)
        assert b"started" in line, f"the gateway said {line!r}: {self.log()[-2000:]}"
        if wait_ready:
            await self.wait_serving(self.world.n)

    async def wait_serving(self, n: int) -> None:
        """Wait until the gateway serves a Snapshot."""

        def serves() -> bool:
            ack = read_ack(self.world.folder.run, self.slot)
            return ack is not None and ack.n >= n and ack.pid == self.pid

        await until(serves, f"Snapshot {n}")

    def log(self) -> str:
        """Return what the process logged."""
        return (self.world.folder.logs / "gateway.log").read_text()

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        await self._wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        return await self._wait()

    async def _wait(self) -> int:
        """Return the exit code, and close the pipe to who is gone."""
        assert self.process is not None
        code = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        if self.process.stdin is not None:
            self.process.stdin.close()
        return code

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        self._listener.close()


def chat_body(
    plan: dict[str, Any] | str = "hello",
    *,
    stream: bool = False,
    **more: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return a chat request whose last message is a plan for the faulty upstream."""
    content = plan if isinstance(plan, str) else json.dumps(plan)
    return {
        "model": ALIAS,
        "messages": [{"role": "user", "content": content}],
        "stream": stream,
        **more,
    }


def make_http(gateway: GatewayProcess, **more: Any) -> httpx.AsyncClient:  # noqa: ANN401
    """Return a client of the gateway with the world's key."""
    return httpx.AsyncClient(
        base_url=gateway.url,
        headers={"authorization": f"Bearer {gateway.world.secret}"},
        timeout=30,
        trust_env=False,
        **more,
    )
