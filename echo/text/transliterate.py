"""Any Unicode text as ASCII that can be spoken, and a note of what cannot be."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from anyascii import anyascii

from echo.text.shouting import lower_shouted_foreign

_GAP = "\x1f"  # around a symbol's name: a space, but none before punctuation

# What anyascii spells by looks and speech should not: quotes, marks and symbols with a name.
_OWN = {
    **dict.fromkeys("—–―‒⸺⸻", "--"),
    **dict.fromkeys("…⋯", ","),
    **dict.fromkeys("“”„‟«»❝❞〝〞〟＂″「」『』《》〈〉‹›", '"'),
    **dict.fromkeys("‘’‚‛ʼ′´", "'"),
    **dict.fromkeys("¿¡·", ""),
    **dict.fromkeys("•‣◦▪●・【】〔〕〖〗", " "),
    **dict.fromkeys("。｡", ". "),
    **dict.fromkeys("，、､", ", "),
    "！": "! ",
    "？": "? ",
    "：": ": ",
    "；": "; ",
    "×": f"{_GAP}times{_GAP}",
    "÷": f"{_GAP}divided by{_GAP}",
    "±": f"{_GAP}plus or minus{_GAP}",
    "°": f"{_GAP}degrees{_GAP}",
    "²": f"{_GAP}squared{_GAP}",
    "³": f"{_GAP}cubed{_GAP}",
    "©": f"{_GAP}copyright{_GAP}",
    "®": f"{_GAP}registered{_GAP}",
    "™": f"{_GAP}trademark{_GAP}",
    "§": f"{_GAP}section{_GAP}",
    "¶": f"{_GAP}paragraph{_GAP}",
    "№": f"{_GAP}number{_GAP}",
}
_CURRENCIES = {"€": "euros", "£": "pounds", "¥": "yen", "₹": "rupees", "₽": "rubles", "₩": "won"}
_OWN |= {sign: f"{_GAP}{name}{_GAP}" for sign, name in _CURRENCIES.items()}

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HAN_EDGE = re.compile(rf"(?<=[{_HAN}])(?=\w)|(?<=\w)(?=[{_HAN}])")  # one syllable, one word
_PRICE = re.compile(rf"(?<!\d)([{''.join(_CURRENCIES)}])(\d{{1,18}}(?:[.,]\d{{1,18}}){{0,6}})")
_FLAG = re.compile("([\U0001f1e6-\U0001f1ff]{2})")
_EMOJI_NAME = re.compile(r":([a-z0-9_]+):")
_COMPOSABLE = re.compile(r"\S{1,256}")
_GAP_BEFORE_MARK = re.compile(rf"{_GAP}(?=[,.;:!?)\]])")
_SPOKEN = re.compile(r"[A-Za-z0-9]")
_LISTED = 10


@dataclass(frozen=True)
class Transliterated:
    """``text``: ASCII without control characters. ``warnings``: ASCII sentences."""

    text: str
    warnings: tuple[str, ...]


def transliterate(text: str) -> Transliterated:
    """``text`` in ASCII letters, by anyascii and the rules above. Linear in its length.

    Line breaks and all other white space become spaces. Emoji are spoken by name. Characters
    with no spoken form (controls, private use, lone surrogates, unknown scripts, ornaments)
    leave the text; a warning names them.
    """
    if not text.isascii():
        text = _COMPOSABLE.sub(lambda m: unicodedata.normalize("NFC", m[0]), text)
        text = lower_shouted_foreign(text)
        text = _PRICE.sub(lambda m: f"{m[2]} {_CURRENCIES[m[1]]}", text)
        text = _FLAG.sub(r" \1 ", _HAN_EDGE.sub(" ", text))
    table: dict[int, str] = {}
    unspoken: list[str] = []
    named: list[str] = []
    for char in dict.fromkeys(text):  # each distinct one, in order of appearance
        if "!" <= char <= "~" or char == " ":
            continue
        table[ord(char)] = _spell(char)
        if _is_unspoken(char, table[ord(char)]):
            unspoken.append(_code(char))
        elif name := _EMOJI_NAME.fullmatch(anyascii(char)):
            named.append(f"{_code(char)} ({name[1].replace('_', ' ')})")
    warnings = []
    if unspoken:
        warnings.append(f"left out, cannot be spoken: {_listing(unspoken)}")
    if named:
        warnings.append(f"spoken by name: {_listing(named)}")
    text = _GAP_BEFORE_MARK.sub("", text.translate(table)).replace(_GAP, " ")
    return Transliterated(text, tuple(warnings))


def _spell(char: str) -> str:
    if char.isspace():
        return " "
    if char in _OWN:
        return _OWN[char]
    category = unicodedata.category(char)
    if category in ("Cc", "Cs", "Co", "Cn"):
        return ""
    ascii_form = anyascii(char)
    if name := _EMOJI_NAME.fullmatch(ascii_form):
        return f"{_GAP}{name[1].replace('_', ' ')}{_GAP}"
    if category == "So" and not _SPOKEN.search(ascii_form):
        return " "  # stars, boxes, arrows: their look-alikes would be read as punctuation
    if category[0] == "S" and len(ascii_form) > 1 and _SPOKEN.search(ascii_form):
        return f"{_GAP}{ascii_form}{_GAP}"  # 5㎏ is not 5kg
    if category == "No" and "/" in ascii_form:
        return f"{_GAP}{ascii_form}{_GAP}"  # 1½ is not 11/2
    if "가" <= char <= "힣":
        return ascii_form.lower()  # anyascii opens every syllable with a capital
    return ascii_form


def _is_unspoken(char: str, spelling: str) -> bool:
    category = unicodedata.category(char)
    if category == "Cc":
        return char not in "\t\n\v\f\r\x85"
    if char in _OWN or spelling.strip():
        return False
    if category[0] == "L":  # in the scripts that anyascii knows, letters without a sound
        return ord(char) > 0xFFFF
    return category in ("Cs", "Co", "Cn", "So")


def _code(char: str) -> str:
    return f"U+{ord(char):04X}"


def _listing(items: list[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
