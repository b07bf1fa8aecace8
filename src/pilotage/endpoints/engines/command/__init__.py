"""Engines that are commands: a server of the OpenAI wire that the installation's settings name."""

import os
import shutil
import sys
from pathlib import Path

from pilotage.endpoints.engines.command.config import ChildConfig
from pilotage.endpoints.launch import Launch, ReplicaSpec
from pilotage.kit.config import duration_s
from pilotage.kit.engine_settings import EngineCommand

_PREFIX = "engine-"  # the suffix of a file says how servers shall read it


class CommandEngine:
    """Runs a command of ``engines:`` beside a child process of ours, which looks after it.

    The private files of commands are in the folder ``run`` until these are ready.
    """

    def __init__(self, name: str, command: EngineCommand, run: Path) -> None:
        self.name = name
        self._command = command.fill_in()
        self._run = run

    def prepare(self, spec: ReplicaSpec, key: str) -> Launch:
        """Return the command that serves a replica; the caller's process becomes its lifeline."""
        command = self._command
        config = ChildConfig(
            argv=command.argv,
            environment=command.environment,
            config_text=command.config,
            config_path=str(self._run / f"{_PREFIX}{spec.replica_id}.yaml"),
            ready_path=command.ready_path,
            model=spec.artifact_path,
            name=spec.alias,
            threads=spec.threads,
            slots=spec.slots,
            context_tokens=spec.context_tokens,
            key=key,
            parent_pid=os.getpid(),
        )
        return Launch(
            argv=[sys.executable, "-P", "-m", "pilotage.endpoints.engines.command.child"],
            environment={},
            config=config.encode(),
            start_timeout_s=duration_s(command.start_timeout),
        )

    def check(self) -> str | None:
        """Return None if the program is there, else which one is not."""
        program = self._command.argv[0]
        if shutil.which(program) is None:
            return (
                f"The engine {self.name} cannot be run: there is no program {program}. Install it, "
                f"or say where it is: engines.{self.name}.program in pilotage.yaml"
            )
        return None


def remove_configs(run: Path) -> None:
    """Remove the private files of commands that were killed while they loaded: none runs yet."""
    for path in run.glob(f"{_PREFIX}*.yaml"):
        path.unlink()
