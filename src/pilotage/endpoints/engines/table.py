"""The engines of an installation, by the name under which a deployment chooses one."""

from collections.abc import Mapping
from pathlib import Path

from pilotage.endpoints.engines.command import CommandEngine
from pilotage.endpoints.engines.llamacpp import ENGINE
from pilotage.endpoints.launch import Engine, Launch, ReplicaSpec
from pilotage.kit.engine_settings import EngineCommand


class EngineTable:
    """llama.cpp, and the commands that the settings name."""

    def __init__(self, commands: Mapping[str, EngineCommand], run: Path) -> None:
        own = {name: CommandEngine(name, command, run) for name, command in commands.items()}
        self._engines: dict[str, Engine] = {ENGINE.name: ENGINE, **own}

    def prepare(self, spec: ReplicaSpec, key: str) -> Launch:
        """Return the command that serves a replica with its engine.

        Raises FileNotFoundError for an engine that is not in the settings any more.
        """
        engine = self._engines.get(spec.engine)
        if engine is None:
            raise FileNotFoundError(f"pilotage.yaml names no engine {spec.engine}")
        return engine.prepare(spec, key)

    def list_engines(self) -> list[Engine]:
        """Return all engines, llama.cpp first."""
        return list(self._engines.values())
