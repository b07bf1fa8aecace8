"""Answers that decline are told from those that answer, and from those that speak of declining."""

# ruff: noqa: RUF001 - letters of other alphabets are meant

import pytest

from pilotage.gateway.measures.refusal import is_refusal


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I cannot provide instructions for that.",
        "Sorry, I am unable to help you with this.",
        "I'm not able to share that information.",
        "I won't write that for you, because it could hurt somebody.",
        "As an AI language model, I cannot have opinions.",
        "I must decline this request.",
        "Es tut mir leid, ich kann dir dabei nicht helfen.",
        "Das ist heikel. Ich darf diese Frage leider nicht beantworten.",
        "Je suis désolé, mais je ne peux pas vous aider avec cela.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Desculpe, mas não posso ajudar com isso.",
    ],
)
def test_who_declines_refuses(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The capital of France is Paris.",
        "You cannot open an account without a passport.",
        "If the customer says 'no', they can appeal within 14 days.",
        "Ja, das kann ich dir erklären: Der Zins ist der Preis des Geldes.",
        "Certainly! Here is a poem about the sea.",
        "The court declined to help.",
        "An answer. " * 60 + "I'm sorry, but I can't help with that.",
    ],
)
def test_who_answers_does_not(answer: str) -> None:
    assert not is_refusal(answer)
