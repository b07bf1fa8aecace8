"""Which language a text is in, told by its script and its commonest words.

Good enough to see that a model began to answer in another language, with no table of a size that
matters: for scripts that one language has to itself the letters decide, for the others the share of
words that are function words of a language.
"""

# ruff: noqa: RUF001 - letters of other alphabets are meant

import re
import unicodedata

UNDETERMINED = "und"
READ_LETTERS = 1_000  # of the beginning of a text
_LEAST_WORDS = 2  # function words, or it is a name, a number or code
_AHEAD = 1.25  # how many times more function words than the next language has
_LAST_SHARED = "\u036f"  # Latin letters, which many languages share, end before
_WORD = re.compile(r"[^\W\d_]+")

_SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "ARABIC": "ar",
    "HEBREW": "he",
    "GREEK": "el",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "THAI": "th",
}
_FUNCTION_WORDS = {
    "en": "a about the of and to in is that it for was with as are be this have from or you not "
    "by on at what how which i can your we they would could does do my has will please "
    "there an if",
    "de": "der die das und ist nicht ein eine zu den von mit sich auf für dem im es ich auch "
    "als an wie was wir sie er hat sind wird bei oder aus nach kann bitte mir einen des "
    "mich ihr",
    "fr": "le la les de des et est un une en que qui dans pour pas sur au avec ce il je ne vous "
    "nous plus par sont du cette mais ou comment quel quelle mon être à d l qu c",
    "es": "el la los las de y es un una en que por con para no se su al lo como más del está "
    "son qué cómo mi pero este esta cuál hay muy puede me tiene",
    "it": "il lo la i gli le di e è un una in che per con non si del della al come più sono da "
    "ma questo questa mi può nel anche ho perché dei quale cosa",
    "pt": "o a os as de e é um uma em que por com para não se do da no na ao como mais são está "
    "qual meu minha você mas isso este esta pode tem foi",
    "nl": "de het een en van is dat in te op niet zijn voor met ik aan er om ook als maar wat "
    "hoe je we deze dit wordt kan naar bij of hebben heeft mijn",
    "sv": "och att det i en är som på för av med inte den till jag har om ett kan vi hur vad du "
    "de var så men från eller mig ska",
    "da": "og at det i en er som på for af med ikke den til jeg har om et kan vi hvordan hvad "
    "du de var så men fra eller mig skal",
    "pl": "i w na z się nie to jest że do jak co o po dla za od ale czy ten tego jego przez są "
    "być mi proszę może które który",
    "cs": "a v na se je to že s z do jak co o pro ale by ten jsem jsou být tak za mi prosím "
    "může která který nebo aby",
    "tr": "ve bir bu için ile de da ne mi mı olarak çok daha gibi nasıl var olan ama benim ben "
    "değil kadar sonra lütfen",
    "ro": "și de în la cu pe nu un o este care să din mai pentru ce se sunt dar cum sau prin "
    "când fi am ai",
    "ru": "и в не на я что с он как это по но из у за от так же для мы вы бы есть или мне можно",
    "uk": "і в не на я що з він як це по але із у за від так же для ми ви би є або мені можна та",
    "bg": "и в не на че с той как това по но от за се да е са или ще може ли съм",
}
_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}


def find_language(text: str) -> str:
    """Return the language of a text as ISO 639-1, ``und`` if it cannot be told, "" of nothing."""
    text = text[:READ_LETTERS]
    if not text.strip():
        return ""
    words = _WORD.findall(text.lower())
    return _find_by_script(words) or _find_by_words(words)


def _find_by_script(words: list[str]) -> str:
    """Return the language of the script that many letters are in, "" where several share it."""
    counts: dict[str, int] = {}
    letters = "".join(words)
    for letter in letters:
        if letter > _LAST_SHARED:
            script = unicodedata.name(letter, "").partition(" ")[0]
            language = _SCRIPTS.get(script, "")
            counts[language] = counts.get(language, 0) + 1
    counts.pop("", None)
    if sum(counts.values()) * 3 < len(letters) or not counts:
        return ""
    if "ja" in counts and "zh" in counts:  # Japanese is written with both
        return "ja"
    return max(counts, key=lambda language: counts[language])


def _find_by_words(words: list[str]) -> str:
    hits = {language: sum(word in known for word in words) for language, known in _WORDS.items()}
    best, second = sorted(hits.items(), key=lambda hit: -hit[1])[:2]
    if best[1] < _LEAST_WORDS or best[1] < second[1] * _AHEAD:
        return UNDETERMINED
    return best[0]
