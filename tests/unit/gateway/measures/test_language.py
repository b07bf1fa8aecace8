"""Languages are told by script and function words, and not where they cannot be."""

# ruff: noqa: RUF001 - letters of other alphabets are meant

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.gateway.measures.language import UNDETERMINED, find_language

SENTENCES = {
    "en": (
        "What is the capital of France and how many people live there?",
        "Please summarise the attached contract for me in three sentences.",
        "The payment was refused because your account does not have enough money in it.",
        "Write a short poem about the sea.",
    ),
    "de": (
        "Wie hoch ist der Zinssatz für einen Kredit über zehn Jahre?",
        "Bitte fasse den Vertrag in drei Sätzen zusammen, und zwar für mich.",
        "Die Zahlung wurde abgelehnt, weil das Konto nicht gedeckt ist.",
        "Ich möchte wissen, ob es noch einen Termin gibt.",
    ),
    "fr": (
        "Quelle est la capitale de la France et combien de personnes y vivent ?",
        "Je voudrais savoir comment ouvrir un compte dans votre banque.",
        "Le paiement est refusé parce que le compte ne contient pas assez d'argent.",
        "Il ne faut pas que vous oubliiez de signer les documents.",
    ),
    "es": (
        "¿Cuál es la capital de Francia y cuántas personas viven en ella?",
        "Me gustaría saber cómo puedo abrir una cuenta en el banco.",
        "El pago se ha rechazado porque la cuenta no tiene dinero.",
        "Los clientes que no han firmado el contrato deben hacerlo hoy.",
    ),
    "it": (
        "Qual è la capitale della Francia e quante persone ci vivono?",
        "Non ho capito perché il pagamento del conto è stato rifiutato.",
        "Vorrei sapere come si può aprire un conto nella banca più vicina.",
    ),
    "pt": (
        "Qual é a capital da França e quantas pessoas vivem lá?",
        "Não sei como posso abrir uma conta no banco, você pode ajudar?",
        "O pagamento foi recusado porque a conta não tem dinheiro para isso.",
    ),
    "nl": (
        "Wat is de hoofdstad van Frankrijk en hoeveel mensen wonen daar?",
        "Ik wil graag weten hoe ik een rekening kan openen bij de bank.",
        "De betaling is geweigerd omdat er niet genoeg geld op de rekening staat.",
    ),
    "pl": ("Jak mogę otworzyć konto w banku i czy to jest bezpłatne?",),
    "tr": ("Bu hesap için ne kadar para gerekli ve nasıl açabilirim?",),
    "ru": ("Как мне открыть счёт в банке и что для этого нужно?",),
    "uk": ("Як мені відкрити рахунок у банку і що для цього потрібно?",),
    "zh": ("请问如何在银行开立账户?",),
    "ja": ("銀行口座を開設するにはどうすればよいですか。",),
    "ko": ("은행 계좌를 어떻게 개설하나요?",),
    "ar": ("كيف يمكنني فتح حساب في البنك؟",),
    "el": ("Πώς μπορώ να ανοίξω λογαριασμό στην τράπεζα;",),
    "he": ("איך אני פותח חשבון בבנק?",),
    "hi": ("मैं बैंक में खाता कैसे खोल सकता हूँ?",),
    "th": ("ฉันจะเปิดบัญชีธนาคารได้อย่างไร",),
}


@pytest.mark.parametrize(
    ("language", "text"),
    [(language, text) for language, texts in SENTENCES.items() for text in texts],
)
def test_a_sentence_is_told(language: str, text: str) -> None:
    assert find_language(text) == language


@pytest.mark.parametrize("text", ["42", "x = y[0] + 3", "Berlin", "SELECT a, b", "🙂🙂", "ok"])
def test_what_has_no_language_is_undetermined(text: str) -> None:
    assert find_language(text) == UNDETERMINED


@pytest.mark.parametrize("text", ["", "   \n"])
def test_nothing_has_none(text: str) -> None:
    assert find_language(text) == ""


def test_a_foreign_name_changes_nothing() -> None:
    assert find_language("The city of 北京 is the capital of China and it is old.") == "en"
    assert find_language("我在 Google 工作,我喜欢我的工作和我的同事。") == "zh"


def test_only_the_beginning_is_read() -> None:
    assert find_language("Das ist nicht die Frage. " * 200 + "the of and to in is " * 900) == "de"


@given(st.text(max_size=300))
def test_any_text_has_an_answer(text: str) -> None:
    assert len(find_language(text)) in (0, 2, 3)
