"""What a version of a prompt says, checked, and how it becomes the messages of a call.

The registry checks it and keeps it, gateways fill it in. Its canonical JSON is what is stored,
hashed and published, byte for byte.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.core.semver import parse_semver
from pilotage.core.templates import Template, parse_template

MAX_MESSAGES = 64
MAX_VARIABLES = 64
MAX_CHOICES = 256
MAX_STOPS = 4
MAX_CONTENT_BYTES = 256 * 1024
Role = Literal["system", "user", "assistant"]
VariableType = Literal["string", "number", "boolean", "enum"]
Value = str | int | float | bool


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of a prompt; ``content`` is a template."""

    role: Role
    content: str


class Variable(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What may be filled in.

    ``values`` lists those of an enum; ``max_length`` bounds a string's letters, 0 does not. A
    variable with a ``default`` need not be given; one that is not required and has none is empty.
    """

    name: str
    type: VariableType = "string"
    required: bool = True
    default: Value | None = None
    values: list[str] = []
    max_length: int = 0
    description: str = ""


class Parameters(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a call gets that does not say otherwise."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = []


_NO_PARAMETERS = Parameters()


class PromptContent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """All that a version says: either ``messages`` or a ``text``, which is one user message."""

    text: str = ""
    messages: list[Message] = []
    variables: list[Variable] = []
    response_schema: dict[str, Any] | None = None
    parameters: Parameters = _NO_PARAMETERS
    description: str = ""

    def list_messages(self) -> list[Message]:
        """Return the messages, of a text the one it stands for."""
        return self.messages or [Message("user", self.text)]


class PromptRef(NamedTuple):
    """What ``NAME@VERSION`` or ``NAME@LABEL`` points to."""

    name: str
    release: str


class Filled(NamedTuple):
    """A message of a call."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ReadyPrompt:
    """A version that is ready to be filled in; ``ref`` is its ``NAME@VERSION``."""

    ref: str
    content: PromptContent
    templates: tuple[tuple[Role, Template], ...]

    def fill(self, given: Mapping[str, object], most_letters: int) -> list[Filled]:
        """Return the messages with the variables filled in.

        Raises ``invalid_request`` for variables that are missing, unknown or of the wrong kind, and
        ``request_too_large`` if there would be more letters, before any are made.
        """
        values = self._read_values(given)
        if sum(template.measure(values) for _, template in self.templates) > most_letters:
            raise PilotageError(
                "request_too_large",
                f"Filled in, the prompt {self.ref} has more than {most_letters} letters.",
                param="prompt.variables",
            )
        return [Filled(role, template.render(values)) for role, template in self.templates]

    def _read_values(self, given: Mapping[str, object]) -> dict[str, str]:
        variables = {variable.name: variable for variable in self.content.variables}
        for name in given:
            if name not in variables:
                known = ", ".join(variables) or "none"
                raise _wrong_value(name, f"{self.ref} has no such variable", f"There are: {known}.")
        values = {}
        for name, variable in variables.items():
            value = given.get(name)
            if value is None and variable.required:
                raise _wrong_value(name, f"{self.ref} needs it", "Give it in 'variables'.")
            if value is None:
                value = variable.default
            values[name] = "" if value is None else _read_value(variable, value)
        return values


def compile_prompt(ref: str, content: PromptContent) -> ReadyPrompt:
    """Return a checked content ready to be filled in."""
    parsed = [(item.role, parse_template(item.content)) for item in content.list_messages()]
    return ReadyPrompt(ref, content, tuple(parsed))


def parse_prompt_ref(text: str) -> PromptRef:
    """Read ``NAME@VERSION`` or ``NAME@LABEL``; raise ``invalid_request`` that says how to write it.

    A name alone is refused: which version answers shall never be a guess.
    """
    name, at, release = text.partition("@")
    if not at or not release:
        raise PilotageError(
            "invalid_request",
            f"{text[:80]!r} does not say which version of a prompt.",
            hint=f"Write a version or a label: {name[:63] or 'NAME'}@1.0.0 or NAME@production.",
            param="prompt",
        )
    return PromptRef(name, release)


def check_label(label: str) -> str:
    """Return the name of a label; raise ``invalid_request`` for one that looks like a version."""
    if _is_version(check_name(label, "label")):
        raise PilotageError(
            "invalid_request",
            f"{label!r} is a version, so it can be no label.",
            hint="Use a word: production, latest, candidate.",
            param="label",
        )
    return label


def encode_content(content: PromptContent) -> bytes:
    """Return the canonical JSON of a content."""
    return msgspec.json.encode(content, order="sorted")


def decode_content(content: bytes | str) -> PromptContent:
    """Read canonical JSON; raise ValueError if it is none."""
    try:
        return msgspec.json.decode(content, type=PromptContent)
    except msgspec.DecodeError as broken:
        raise ValueError(f"not the content of a prompt: {broken}") from broken


def hash_content(content: PromptContent) -> str:
    """Return the hex SHA-256 of the canonical JSON: equal for equal contents only."""
    return hashlib.sha256(encode_content(content)).hexdigest()


def read_content(given: Mapping[str, object]) -> PromptContent:
    """Return the checked content that a document or a request describes.

    Raises ``invalid_request``, naming the field.
    """
    try:
        content = msgspec.convert(given, PromptContent)
    except msgspec.ValidationError as wrong:
        message, _, where = str(wrong).replace("`", "'").partition(" - at '$.")
        raise _wrong(where.rstrip("'") or None, message.removeprefix("Object ")) from None
    return check_content(content)


def check_content(content: PromptContent) -> PromptContent:
    """Return a content as it is stored; raise ``invalid_request``, naming the field.

    Where no variables are declared, each one in the templates is a required string.
    """
    _check_messages(content)
    used = _list_used(content)
    declared = content.variables or [Variable(name=name) for name in used]
    variables = _check_variables(declared, used)
    _check_parameters(content.parameters)
    asks = content.parameters != _NO_PARAMETERS  # what is empty is left out of canonical JSON
    parameters = content.parameters if asks else _NO_PARAMETERS
    checked = msgspec.structs.replace(content, variables=variables, parameters=parameters)
    try:
        size = len(encode_content(checked))
    except UnicodeEncodeError:
        raise _wrong(None, "there is half a letter (a lone surrogate) in it") from None
    if size > MAX_CONTENT_BYTES:
        raise _wrong(None, f"it has {size} bytes of at most {MAX_CONTENT_BYTES}")
    return checked


def _check_messages(content: PromptContent) -> None:
    if bool(content.text) == bool(content.messages):
        raise _wrong("messages", "a prompt has either messages or a text", "Give one of the two.")
    if len(content.messages) > MAX_MESSAGES:
        raise _wrong("messages", f"there may be {MAX_MESSAGES} at most")
    roles = [item.role for item in content.messages]
    if "system" in roles[_count_leading(roles) :]:
        raise _wrong("messages", "a system message comes before all others")


def _count_leading(roles: Sequence[Role]) -> int:
    return next((at for at, role in enumerate(roles) if role != "system"), len(roles))


def _list_used(content: PromptContent) -> list[str]:
    used: dict[str, None] = {}
    for number, message in enumerate(content.list_messages()):
        try:
            used |= dict.fromkeys(parse_template(message.content).names)
        except ValueError as wrong:
            param = f"messages[{number}].content" if content.messages else "text"
            raise _wrong(param, str(wrong)) from None
    return list(used)


def _check_variables(variables: Sequence[Variable], used: Sequence[str]) -> list[Variable]:
    if len(variables) > MAX_VARIABLES:
        raise _wrong("variables", f"there may be {MAX_VARIABLES} at most")
    names = [variable.name for variable in variables]
    for name in used:
        if name not in names:
            raise _wrong("variables", f"{{{{ {name} }}}} is used and not declared")
    for number, name in enumerate(names):
        if name in names[:number]:
            raise _wrong("variables", f"{name!r} is declared twice")
        if name not in used:
            raise _wrong("variables", f"{name!r} is declared and used nowhere")
    return [_check_variable(variable) for variable in variables]


def _check_variable(variable: Variable) -> Variable:
    param = f"variables.{variable.name}"
    is_enum = variable.type == "enum"
    if is_enum != bool(variable.values) or len(set(variable.values)) != len(variable.values):
        raise _wrong(param, "an enum, and nothing else, has 'values', each once")
    if len(variable.values) > MAX_CHOICES:
        raise _wrong(param, f"there may be {MAX_CHOICES} values at most")
    if variable.max_length < 0 or (variable.max_length and variable.type != "string"):
        raise _wrong(param, "'max_length' bounds the letters of a string")
    if variable.default is None:
        return variable
    _read_value(variable, variable.default)
    return msgspec.structs.replace(variable, required=False)


def _check_parameters(parameters: Parameters) -> None:
    for name, highest in (("temperature", 2.0), ("top_p", 1.0)):
        value = getattr(parameters, name)
        if value is not None and not 0 <= value <= highest:
            raise _wrong(f"parameters.{name}", f"it is 0 to {highest:g}")
    if parameters.max_tokens is not None and not 1 <= parameters.max_tokens < 2**31:
        raise _wrong("parameters.max_tokens", "it is 1 or more")
    if len(parameters.stop) > MAX_STOPS or not all(parameters.stop):
        raise _wrong("parameters.stop", f"there may be {MAX_STOPS} texts, none of them empty")


def _read_value(variable: Variable, value: object) -> str:
    """Return a value as text; raise ``invalid_request`` if it is not of its variable's kind."""
    if isinstance(value, bool):
        is_right, text = variable.type == "boolean", str(value).lower()
    elif isinstance(value, int | float):
        is_right, text = variable.type == "number" and math.isfinite(value), str(value)
    elif isinstance(value, str):
        is_right, text = variable.type in ("string", "enum"), value
    else:
        is_right, text = False, ""
    if not is_right:
        raise _wrong_value(variable.name, f"it must be a {variable.type}")
    if variable.type == "enum" and value not in variable.values:
        allowed = ", ".join(variable.values)
        raise _wrong_value(variable.name, "it must be one of its values", f"These are: {allowed}.")
    if 0 < variable.max_length < len(text):
        raise _wrong_value(variable.name, f"it may have {variable.max_length} letters at most")
    return text


def _is_version(text: str) -> bool:
    try:
        parse_semver(text)
    except ValueError:
        return False
    return True


def _wrong_value(name: str, why: str, hint: str = "") -> PilotageError:
    shown = name[:80]
    return PilotageError(
        "invalid_request",
        f"The prompt's variable {shown!r}: {why}.",
        hint=hint,
        param=f"prompt.variables.{shown}",
    )


def _wrong(param: str | None, why: str, hint: str = "") -> PilotageError:
    detail = f"{param}: {why}." if param else f"The prompt is not valid: {why}."
    return PilotageError("invalid_request", detail, hint=hint, param=param)
