"""What an engine of this installation would load to serve a version."""

from collections.abc import Collection
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.names import LLAMACPP
from pilotage.kit.db import Tx
from pilotage.registry.artifacts.types import Format
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Artifact, NamedVersion

COMMANDS_RUN = (Format.GGUF, Format.SAFETENSORS)


class Runnable(NamedTuple):
    """The model that is loaded and the adapter that is put on it ("": none), by SHA-256."""

    artifact_sha256: str
    adapter_sha256: str = ""


def check_engine(engine: str, commands: Collection[str]) -> str:
    """Return the name of an engine, llama.cpp for ""; raise ``invalid_request`` for others."""
    engine = engine or LLAMACPP
    if engine != LLAMACPP and engine not in commands:
        raise PilotageError(
            "invalid_request",
            f"There is no engine {engine[:80]!r}.",
            hint=f"There are: {', '.join([LLAMACPP, *sorted(commands)])}. Others are named below "
            "engines: in pilotage.yaml.",
            param="engine",
        )
    return engine


async def find_runnable(
    tx: Tx, registry: RegistryService, version: NamedVersion, engine: str
) -> Runnable:
    """Return what an engine loads for a version; raise ``conflict`` where it cannot run it.

    The base of an adapter is held until the transaction ends, as the version itself is.
    """
    own = await _find_artifact(tx, registry, version, engine)
    base = await registry.find_base(tx, version)
    if base is None:
        return Runnable(own.sha256)
    if engine != LLAMACPP:
        raise PilotageError(
            "conflict",
            f"{version.ref} is an adapter, and the engine {engine} is given whole models.",
            hint=f"Deploy it with the engine {LLAMACPP}, or merge it into its base.",
        )
    await registry.hold_versions(tx, [base.id])
    held = await registry.get_version(tx, base.id)
    return Runnable((await _find_artifact(tx, registry, held, engine)).sha256, own.sha256)


async def _find_artifact(
    tx: Tx, registry: RegistryService, version: NamedVersion, engine: str
) -> Artifact:
    if version.artifact_sha256 is None:
        raise PilotageError(
            "conflict",
            f"{version.ref} has no file that an engine here could run.",
            hint="Deploy the provider's name of it: pilotage endpoints deploy --upstream",
        )
    artifact = await registry.get_artifact(tx, version.artifact_sha256)
    if engine != LLAMACPP and artifact.format not in COMMANDS_RUN:
        raise PilotageError(
            "conflict",
            f"{version.ref} is made of {artifact.format} files, engines are given safetensors.",
            hint="Convert it, and push what came of it as another version.",
        )
    if engine == LLAMACPP and (artifact.is_tree or artifact.format != Format.GGUF):
        raise PilotageError(
            "conflict",
            f"{version.ref} is made of {artifact.format} files, the engine runs {Format.GGUF}.",
            hint="Convert it with llama.cpp's convert_hf_to_gguf.py and push the file.",
        )
    return artifact
