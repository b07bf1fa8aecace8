"""llama.cpp: GGUF models on the CPU, through the ``xllamacpp`` wheel in a child process.

What a client of its HTTP server has to know: after a streamed reply it closes the connection
although it has promised to keep it; an idle connection is closed after 5 s; the status of a stream
is sent when the prompt has been accepted, so an overlong prompt is a plain 400. Error messages may
quote the request.
"""

import importlib.util
import os
import sys

from pilotage.endpoints.engines.llamacpp.config import ChildConfig
from pilotage.endpoints.launch import Launch, ReplicaSpec


class LlamaCppEngine:
    """Serves a GGUF file with llama.cpp's own HTTP server."""

    name = "llamacpp"

    def prepare(self, spec: ReplicaSpec, key: str) -> Launch:
        """Return the command that serves a replica; the caller's process becomes its lifeline."""
        config = ChildConfig(
            replica_id=spec.replica_id,
            artifact_path=spec.artifact_path,
            alias=spec.alias,
            threads=spec.threads,
            slots=spec.slots,
            context_tokens=spec.context_tokens,
            key=key,
            parent_pid=os.getpid(),
            adapter_paths=tuple(adapter.path for adapter in spec.adapters),
        )
        return Launch(
            # -P: a file in the working folder must not stand in for a module
            argv=[sys.executable, "-P", "-m", "pilotage.endpoints.engines.llamacpp.child"],
            # libgomp reads these when it is loaded. Its threads spin while they wait, which on
            # shared cores costs up to three quarters of the tokens per second.
            environment={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
            config=config.encode(),
        )

    def check(self) -> str | None:
        """Return None if the wheel is installed, else how to install it."""
        if importlib.util.find_spec("xllamacpp") is None:
            return 'The engine llamacpp is not installed. Run: pip install "pilotage[local]"'
        return None


ENGINE = LlamaCppEngine()
