"""Contents of prompts: what is refused, what is stored, what a call gets of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.prompts import (
    MAX_CHOICES,
    MAX_CONTENT_BYTES,
    MAX_MESSAGES,
    MAX_VARIABLES,
    Filled,
    ReadyPrompt,
    check_label,
    compile_prompt,
    decode_content,
    encode_content,
    hash_content,
    parse_prompt_ref,
    read_content,
)

ENOUGH = 10_000
GREETING = {
    "messages": [
        {"role": "system", "content": "You write {{ tone }} letters."},
        {"role": "user", "content": "To {{ name }}, aged {{ age }}: {{ name }}{{ urgent }}"},
    ],
    "variables": [
        {"name": "name", "max_length": 8},
        {"name": "age", "type": "number"},
        {"name": "tone", "type": "enum", "values": ["kind", "stern"], "default": "kind"},
        {"name": "urgent", "type": "boolean", "required": False},
    ],
    "parameters": {"temperature": 0.2, "stop": ["END"]},
    "response_schema": {"type": "object"},
    "description": "A letter.",
}


@pytest.fixture
def greeting() -> ReadyPrompt:
    return compile_prompt("greeting@1.0.0", read_content(GREETING))


def refuse(given: dict[str, object]) -> PilotageError:
    with pytest.raises(PilotageError) as refused:
        read_content(given)
    assert refused.value.code == "invalid_request"
    return refused.value


def test_values_of_every_kind_are_filled_in(greeting: ReadyPrompt) -> None:
    values = {"name": "Ada", "age": 36, "tone": "stern", "urgent": True}

    assert greeting.fill(values, ENOUGH) == [
        Filled("system", "You write stern letters."),
        Filled("user", "To Ada, aged 36: Adatrue"),
    ]
    assert greeting.fill({"name": "Ada", "age": 36.5}, ENOUGH) == [
        Filled("system", "You write kind letters."),
        Filled("user", "To Ada, aged 36.5: Ada"),
    ]


@pytest.mark.parametrize(
    ("values", "param", "said"),
    [
        ({"age": 1}, "name", "needs it"),
        ({"name": None, "age": 1}, "name", "needs it"),
        ({"name": "Ada", "age": "1"}, "age", "must be a number"),
        ({"name": "Ada", "age": True}, "age", "must be a number"),
        ({"name": "Ada", "age": float("inf")}, "age", "must be a number"),
        ({"name": 1, "age": 1}, "name", "must be a string"),
        ({"name": ["Ada"], "age": 1}, "name", "must be a string"),
        ({"name": "Ada", "age": 1, "urgent": "yes"}, "urgent", "must be a boolean"),
        ({"name": "Ada", "age": 1, "tone": "loud"}, "tone", "one of its values"),
        ({"name": "Ada Lovelace", "age": 1}, "name", "8 letters at most"),
        ({"name": "Ada", "age": 1, "shoe": 1}, "shoe", "no such variable"),
    ],
)
def test_a_wrong_value_is_named(
    greeting: ReadyPrompt, values: dict[str, object], param: str, said: str
) -> None:
    with pytest.raises(PilotageError, match=said) as refused:
        greeting.fill(values, ENOUGH)

    assert refused.value.code == "invalid_request"
    assert refused.value.param == f"prompt.variables.{param}"


def test_what_would_be_too_long_is_never_made() -> None:
    prompt = compile_prompt("long@1.0.0", read_content({"text": "{{ a }}" * 1000}))

    assert prompt.fill({"a": "x"}, 1000) == [Filled("user", "x" * 1000)]
    with pytest.raises(PilotageError) as refused:
        prompt.fill({"a": "xy"}, 1999)
    assert refused.value.code == "request_too_large"


def test_a_text_is_one_user_message_and_its_variables_declare_themselves() -> None:
    content = read_content({"text": "{{ b }} and {{ a }}"})

    assert [(item.name, item.type, item.required) for item in content.variables] == [
        ("b", "string", True),
        ("a", "string", True),
    ]
    assert compile_prompt("t@1.0.0", content).fill({"a": "1", "b": "2"}, 99) == [
        Filled("user", "2 and 1")
    ]


def test_a_default_makes_a_variable_optional() -> None:
    content = read_content(GREETING)

    assert [item.required for item in content.variables] == [True, True, False, False]


def messages(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


def one(**more: object) -> dict[str, object]:
    return {"text": "{{ a }}", "variables": [{"name": "a", **more}]}


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({}, "messages", "either messages or a text"),
        ({"text": "a", "messages": messages("user")}, "messages", "either messages or a text"),
        ({"messages": messages("user", "system")}, "messages", "before all others"),
        ({"messages": messages("tool")}, "messages[0].role", "Invalid enum value 'tool'"),
        ({"messages": messages(*["user"] * (MAX_MESSAGES + 1))}, "messages", "at most"),
        ({"text": "{{ a b }}"}, "text", "line 1"),
        ({"messages": [*messages("user"), {"role": "user", "content": "{{"}]},
         "messages[1].content", "line 1"),
        ({"text": "a", "colour": "red"}, None, "unknown field 'colour'"),
        ({"text": "a", "variables": [{"name": "b"}]}, "variables", "'b' is declared and used"),
        ({"text": "{{ a }}{{ b }}", "variables": [{"name": "b"}]}, "variables", "not declared"),
        ({"text": "{{ a }}", "variables": [{"name": "a"}] * 2}, "variables", "declared twice"),
        ({"text": "a", "variables": [{"name": str(n)} for n in range(MAX_VARIABLES + 1)]},
         "variables", "at most"),
        (one(type="enum"), "variables.a", "has 'values'"),
        (one(type="enum", values=["b", "b"]), "variables.a", "each once"),
        (one(values=["b"]), "variables.a", "has 'values'"),
        (one(type="enum", values=[str(n) for n in range(MAX_CHOICES + 1)]), "variables.a", "most"),
        (one(max_length=-1), "variables.a", "max_length"),
        (one(type="number", max_length=1), "variables.a", "max_length"),
        (one(type="number", default="x"), "prompt.variables.a", "must be a number"),
        ({"text": "a", "parameters": {"temperature": 2.1}}, "parameters.temperature", "0 to 2"),
        ({"text": "a", "parameters": {"top_p": -1}}, "parameters.top_p", "0 to 1"),
        ({"text": "a", "parameters": {"max_tokens": 0}}, "parameters.max_tokens", "1 or more"),
        ({"text": "a", "parameters": {"stop": [""]}}, "parameters.stop", "none of them empty"),
        ({"text": "a", "parameters": {"stop": list("abcde")}}, "parameters.stop", "4 texts"),
        ({"text": "a", "parameters": {"top_p": "b"}}, "parameters.top_p", "Expected"),
        ({"text": "a" * MAX_CONTENT_BYTES}, None, "bytes of at most"),
        ({"text": "\ud800"}, None, "half a letter"),
    ],
)  # fmt: skip
def test_what_no_version_can_say_is_refused(
    given: dict[str, object], param: str | None, said: str
) -> None:
    refused = refuse(given)

    assert said in refused.detail
    assert refused.param == param


@given(st.permutations(list(GREETING)), st.booleans())
def test_the_hash_is_that_of_what_is_said(order: list[str], changed: bool) -> None:
    given = {name: GREETING[name] for name in order}
    first = read_content(GREETING)
    second = read_content(given | ({"description": "Another letter."} if changed else {}))

    assert (hash_content(first) == hash_content(second)) is not changed
    assert decode_content(encode_content(second)) == second
    assert read_content(msgspec.json.decode(encode_content(second))) == second


def test_what_is_said_to_be_empty_is_as_what_is_left_out() -> None:
    empty: dict[str, object] = {
        "messages": [],
        "response_schema": None,
        "parameters": {"temperature": None, "top_p": None, "max_tokens": None, "stop": []},
        "description": "",
    }
    variable: dict[str, object] = {"required": True, "default": None, "values": [], "max_length": 0}

    said = read_content({"text": "{{ a }}", "variables": [{"name": "a", **variable}], **empty})

    assert encode_content(said) == encode_content(read_content({"text": "{{ a }}"}))


def test_what_is_no_content_is_not_read() -> None:
    for broken in (b"", b'{"colour":1}', b"[]"):
        with pytest.raises(ValueError, match="not the content of a prompt"):
            decode_content(broken)


@pytest.mark.parametrize("text", ["greeting", "greeting@", "", "@"])
def test_a_reference_says_which_version(text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        parse_prompt_ref(text)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "prompt")
    assert "@production" in refused.value.hint


def test_a_reference_is_a_name_and_a_release() -> None:
    assert parse_prompt_ref("greeting@1.2.0") == ("greeting", "1.2.0")
    assert parse_prompt_ref("greeting@production") == ("greeting", "production")


@pytest.mark.parametrize("label", ["1.0.0", "1.0.0-rc.1", "Prod", "", "a/b"])
def test_a_label_is_a_word(label: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_label(label)
    assert refused.value.param == "label"
    assert check_label("production") == "production"
