"""Templates: what is a variable, what is text, and that a value is never read as a template."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.templates import (
    MAX_VARIABLE_NAME,
    Slot,
    check_variable_name,
    parse_template,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
BRACES = st.text(st.sampled_from("{}\\ ab%$#\n"), max_size=20) | st.text(max_size=20)
_RUN = re.compile(r"(\\*)(\{?)((?:\{\{)+)")


def write(text: str) -> str:
    """Return a template that renders to a text, whatever is in it."""

    def escape(run: re.Match[str]) -> str:
        backslashes = run[1] if run[2] else run[1] * 2
        return backslashes + run[2] + "\\{{" * (len(run[3]) // 2)

    return _RUN.sub(escape, text)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("Hello {{ name }}!", "Hello <n>!"),
        ("{{name}}{{\tname }}", "<n><n>"),
        ('{"a": {"b": {{ name }}}}', '{"a": {"b": <n>}}'),
        ("{{{ name }}}", "{<n>}"),
        (r"\{{ name }} is written so", "{{ name }} is written so"),
        (r"\\{{ name }}", "\\<n>"),
        (r"\\\{{ name }}", r"\{{ name }}"),
        (r"C:\dir\{a} }} {", r"C:\dir\{a} }} {"),
        ("", ""),
    ],
)
def test_only_two_braces_with_a_name_between_are_a_variable(template: str, rendered: str) -> None:
    assert parse_template(template).render({"name": "<n>"}) == rendered


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{", "line 1: after '{{' comes ''"),
        ("one\ntwo {{ a.b }}", "line 2: after '{{' comes ' a.b }}'"),
        ("{{ name }", "comes ' name }'"),
        ("{{ }}", "comes ' }}'"),
        ("{{ a | upper }}", "comes ' a | upper }}'"),
        ("{{ 1st }}", "comes ' 1st }}'"),
        ("{{ naïve }}", "comes ' naïve }}'"),
        ("{{\nname }}", "comes ''"),
        ("{% if x %}{{{{ x }}", None),
        ("{{ " + "a" * (MAX_VARIABLE_NAME + 1) + " }}", "is no variable"),
    ],
)
def test_anything_else_between_braces_is_refused(template: str, said: str | None) -> None:
    if said is None:
        assert parse_template(template).render({"x": "1"}) == "{% if x %}{{1"
        return
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_template(template)


@pytest.mark.parametrize("name", ["", "a-b", "a b", "1a", "é", "a" * (MAX_VARIABLE_NAME + 1)])
def test_what_no_template_can_name_is_no_variable(name: str) -> None:
    with pytest.raises(ValueError, match="is no variable"):
        check_variable_name(name)


def test_names_come_once_in_order() -> None:
    template = parse_template("{{ b }} {{ a }} {{ b }}")

    assert template.names == ("b", "a")
    assert template.parts == (Slot("b"), " ", Slot("a"), " ", Slot("b"))


def test_a_variable_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        parse_template("{{ a }}").render({"b": "1"})


@given(BRACES)
def test_any_text_can_be_written(text: str) -> None:
    template = parse_template(write(text))

    assert template.names == ()
    assert template.render({}) == text


@given(st.lists(st.tuples(BRACES, NAMES), max_size=5), BRACES, st.data())
def test_values_are_never_read_as_templates(
    pairs: list[tuple[str, str]], last: str, data: st.DataObject
) -> None:
    values = {name: data.draw(BRACES | st.just("{{ a }}")) for _, name in pairs}
    text = "".join(f"{write(before)} {{{{ {name} }}}} " for before, name in pairs) + write(last)

    template = parse_template(text)
    rendered = template.render(values)

    assert rendered == "".join(f"{before} {values[name]} " for before, name in pairs) + last
    assert template.measure(values) == len(rendered)
    assert set(template.names) == set(values)


@given(BRACES)
def test_every_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        template = parse_template(text)
    except ValueError:
        return
    assert template.measure(dict.fromkeys(template.names, "")) <= len(text)
