"""Engines: what each gets of the machine, and those that are commands with arguments of their own.

Commands may be any server of the OpenAI wire. They are named in ``pilotage.yaml`` alone, by whoever
runs the installation: what the API says only chooses among them. Both presets leave a server's key
out of its arguments, which all users of a machine can read.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.names import LLAMACPP
from pilotage.kit.setting_types import Duration, doc

WORDS = ("model", "name", "host", "port", "context_tokens", "slots", "threads", "key", "config")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_WORD = re.compile(r"\{([a-z_]+)\}")


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The local engines that serve models."""

    threads: Annotated[
        int, msgspec.Meta(ge=0, le=1024, description="threads of an engine; 0 is all cores but one")
    ] = 0
    slots: Annotated[
        int, msgspec.Meta(ge=1, le=256, description="calls that an engine answers at once")
    ] = 4
    context_tokens: Annotated[
        int,
        msgspec.Meta(
            ge=64, le=1_048_576, description="context of each slot; the model's own limit caps it"
        ),
    ] = 2048
    start_timeout: Annotated[Duration, doc("time that a model gets to load")] = "2m"
    machine: Annotated[
        Literal["on-demand", "spot"],
        doc(
            "what the engines run on: a spot machine may be taken away at any time, and its "
            "replicas cost the spot price"
        ),
    ] = "on-demand"


class EngineCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server is started; the words of :data:`WORDS` in braces are filled in.

    ``argv`` follows the arguments of a ``preset``, whose ``program`` may be elsewhere. ``config``
    is the text of a file that only its own user can read, and ``{config}`` where it is.
    """

    preset: Annotated[Literal["", "vllm", "sglang"], doc("arguments to begin with")] = ""
    program: Annotated[list[str], doc("what is run instead of the preset's program")] = []
    argv: Annotated[list[str], doc("arguments, the program first where there is no preset")] = []
    environment: Annotated[dict[str, str], doc("variables to add")] = {}
    config: Annotated[str, doc("text of a private file")] = ""
    ready_path: Annotated[str, doc("answers 200 once the model is loaded")] = ""
    start_timeout: Annotated[Duration, doc("time that a model gets to load")] = "10m"

    def fill_in(self) -> "EngineCommand":
        """Return the command with what its preset says."""
        if not self.preset:
            return msgspec.structs.replace(self, ready_path=self.ready_path or "/health")
        begin = _PRESETS[self.preset]
        return msgspec.structs.replace(
            self,
            preset="",
            program=[],
            argv=[*(self.program or begin.program), *begin.argv, *self.argv],
            environment={**begin.environment, **self.environment},
            config=begin.config + self.config,
            ready_path=self.ready_path or begin.ready_path,
        )


_PRESETS = {
    # vllm serve: the key is a variable, and guards what is below /v1
    "vllm": EngineCommand(
        program=["vllm"],
        argv=[
            *("serve", "{model}", "--served-model-name", "{name}"),
            *("--host", "{host}", "--port", "{port}"),
            *("--max-model-len", "{context_tokens}", "--max-num-seqs", "{slots}"),
        ],
        environment={"VLLM_API_KEY": "{key}", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
        ready_path="/health",
    ),
    # sglang.launch_server: the key is an argument, which a file may hold instead
    "sglang": EngineCommand(
        program=["python3", "-m", "sglang.launch_server"],
        argv=[
            *("--config", "{config}", "--model-path", "{model}", "--served-model-name", "{name}"),
            *("--host", "{host}", "--port", "{port}"),
            *("--context-length", "{context_tokens}", "--max-running-requests", "{slots}"),
        ],
        environment={"HF_HUB_OFFLINE": "1"},
        config="api-key: {key}\n",
        ready_path="/health",
    ),
}


def read_engines(
    content: Any,  # noqa: ANN401 - YAML
    source: str,
) -> dict[str, EngineCommand]:
    """Return the engines of ``engines:``, by name; raise ``invalid_config`` that names the flaw."""
    if content is None:
        return {}
    try:
        engines = msgspec.convert(content, dict[str, EngineCommand])
    except msgspec.ValidationError as wrong:
        text = str(wrong).replace("`", "'").replace("$[...]", "an engine").replace("$", "it")
        raise PilotageError("invalid_config", f"{source}: engines: {text}.") from None
    for name, command in engines.items():
        for problem, hint in _find_flaws(name, command.fill_in(), command):
            raise PilotageError("invalid_config", f"{source}: engines.{name} {problem}.", hint=hint)
    return engines


def _find_flaws(name: str, full: EngineCommand, said: EngineCommand) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(name) or name == LLAMACPP:
        yield "is no name for an engine", "Use up to 40 letters a-z, digits and '-'; not llamacpp."
    if said.program and not said.preset:
        yield "has a program and no preset", "Write the program as the first word of argv."
    if not full.argv or not full.argv[0]:
        yield "says nothing to run", "Give preset: vllm, preset: sglang, or argv: [PROGRAM, ...]."
    texts = [*full.argv, *full.environment.values(), full.config]
    unknown = sorted({word for text in texts for word in _WORD.findall(text)} - {*WORDS})
    if unknown:
        known = ", ".join(f"{{{word}}}" for word in WORDS)
        yield f"has {{{unknown[0]}}}, which nothing is filled in for", f"There are: {known}."
    if not any("{port}" in text for text in texts):
        yield "says nowhere {port}", "It must listen on 127.0.0.1 at the port that it is told."
    if any("{key}" in word for word in full.argv):
        yield (
            "has {key} among its arguments",
            "Others can read these: use environment or config.",
        )
    if not any("{key}" in text for text in (*full.environment.values(), full.config)):
        yield "says nowhere {key}", "Everybody on the machine could call it without one."
    if full.config and not any("{config}" in text for text in full.argv):
        yield "has a config that no argument names", "Give its place as {config} in argv."
    if not full.ready_path.startswith("/"):
        yield "has a ready_path without a slash", "Write it as /health."
