"""Text as statistics offices write it: encodings, delimiters, identifiers, names, numbers.

Pure functions of bytes and strings; reading files is in `tables`.
"""

from __future__ import annotations

import codecs
import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

DELIMITERS = (",", ";", "\t", "|")
MISSING = frozenset(
    {"", "-", "--", "‐", "‑", "‒", "–", "—", "―", "\u2212", ".", "..", "...", "…", ":", "na"}
    | {"n/a", "n.a.", "n.d.", "nan", "null", "none", "nd", "missing", "#n/a", "x"}
)
SUPPRESSED = re.compile(r"^(<\s*\d+|\*+|c|\(d\)|s)$", re.IGNORECASE)
PLAIN_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)$")
BLANKS = "\u00a0\u2007\u2009\u202f "
GROUP_MARKS = ",'\u2019" + BLANKS
"""What may stand between thousands, where nothing is stated; the full stop needs a whole column."""
EXPONENT_NUMBER = re.compile(r"^[+-]?\d+(\.\d+)?[eE][+-]?\d+$")
APOSTROPHES = frozenset(
    "'`\u00b4\u2018\u2019\u201a\u201b\u2032\u2035\uff07\uff40\u02b9\u02ba\u02bb\u02bc\u02bd"
    "\u02be\u02bf\u02c8\u02ca\u02cb\u02ee\u055a\u05f3\u07f4\u07f5\ua78b\ua78c\u1fbd\u1fbf\u1ffd"
)
"""Also those that Unicode counts as letters, such as the okina: no two places differ by them."""
NO_APOSTROPHES = str.maketrans("", "", "'`")
INVISIBLE = frozenset("\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")
ACCENTS = (
    (0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F),
    (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670), (0x06D6, 0x06ED),
)  # fmt: skip
"""Marks that are commonly left out: accents of Latin, Greek and Cyrillic letters, points of Hebrew
and Arabic ones. Those of other scripts (vowel signs and tone marks of Thai, Bengali, Khmer and so
on) are letters."""
# Letters that Unicode does not decompose into a base letter and an accent.
UNDECOMPOSED = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ħ": "h"}
)


@dataclass(frozen=True)
class Decoded:
    """Text, the encoding it was in, and whether that had to be guessed."""

    text: str
    encoding: str
    guessed: bool


def decode(raw: bytes) -> Decoded:
    """Text of a file, by its byte order mark, as UTF-8, or by the most likely older encoding.

    Raises:
        UnicodeError: the bytes are no text (they hold NUL bytes or control characters).
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if raw.startswith(mark):
            return Decoded(_plain(raw.decode(encoding)), encoding, False)
    try:
        return Decoded(_plain(raw.decode("utf-8")), "utf-8", False)
    except UnicodeDecodeError:
        pass
    if b"\x00" in raw:
        raise UnicodeError("it holds NUL bytes: binary, or UTF-16 without its mark")
    from charset_normalizer import from_bytes

    # Frequent in agencies' exports and told apart badly by statistics on short words: Windows
    # Western, which decodes nearly anything, is the answer unless another is clearly better.
    best = from_bytes(raw, cp_isolation=["cp1252", "latin_1", "cp1250", "cp1251", "cp1256"]).best()
    encoding = best.encoding if best is not None else "cp1252"
    if encoding in ("latin_1", "ascii", "cp1250") and b"\x81" not in raw:
        encoding = "cp1252"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        encoding, text = "latin_1", raw.decode("latin_1")
    return Decoded(_plain(text), encoding, True)


def _plain(text: str) -> str:
    bad = next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\r\n\x0b"), None)
    if bad is not None:
        row = text[: text.index(bad)].count("\n") + 1
        raise UnicodeError(f"line {row} holds the control character U+{ord(bad):04X}")
    return text


def sniff_delimiter(text: str) -> str | None:
    """The delimiter that cuts most of the first lines into one number of columns.

    Quotes are honoured; lines above and below the table may be of any shape. None where no
    candidate cuts anything.
    """
    lines = [line for line in text.splitlines()[:60] if line.strip()]
    best: tuple[float, int, str] | None = None
    for candidate in DELIMITERS:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=candidate))
        cut = [(count, width) for width, count in widths.items() if width > 1]
        if not cut:
            continue
        count, width = max(cut)
        share = count / widths.total()
        if best is None or (share, width) > best[:2]:
            best = (share, width, candidate)
    return best[2] if best else None


def clean_id(value: object) -> str:
    """An identifier as text: composed Unicode, no outer blanks, `72001.0` as `72001`."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = unicodedata.normalize("NFC", str(value)).replace("\u00a0", " ").strip()
    return re.sub(r"^(\d+)\.0+$", r"\1", text)


def clean_name(value: object) -> str:
    """A name as text: composed Unicode, single blanks."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return " ".join(unicodedata.normalize("NFC", str(value)).split())


def spelling_key(value: object) -> str:
    """A name without what is no letter of it: case, punctuation, apostrophes, repeated blanks.

    Accents stay; `name_key` drops them too.
    """
    return _spelling(clean_name(value))


@lru_cache(maxsize=1 << 17)
def _spelling(text: str) -> str:
    if text.isascii():
        plain = text.casefold().translate(NO_APOSTROPHES)
        return " ".join(re.sub(r"[^a-z0-9]+", " ", plain).split())
    for _ in range(2):  # capitals may unfold into marks and apostrophes, which unfold again
        text = "".join(c for c in text if c not in APOSTROPHES and c not in INVISIBLE)
        text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if c not in APOSTROPHES and c not in INVISIBLE)
    return " ".join("".join(c if _of_a_word(c) else " " for c in text).split())


def name_key(value: object) -> str:
    """A name reduced to what two spellings of it share.

    Case, accents, hyphens, apostrophes, full stops and repeated blanks do not count. Vowel signs
    and tone marks of scripts that write words with them do (`ACCENTS`).
    """
    return _without_accents(spelling_key(value))


@lru_cache(maxsize=1 << 17)
def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    text = text.translate(UNDECOMPOSED)
    return " ".join("".join(c for c in text if not _is_accent(c)).split())


def _of_a_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _is_accent(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in ACCENTS)


@dataclass(frozen=True)
class Number:
    """A number read from text: its value, or why there is none.

    `problem` is one of "", "missing", "suppressed", "nil" (0 by a mark that the settings name),
    "grouped" (read, by dropping thousands separators), "exponent", "text".
    """

    value: float | None
    problem: str


def parse_number(
    text: str, decimal: str = ".", thousands: str | None = None, nil: Collection[str] = ()
) -> Number:
    """A count as agencies write it.

    Args:
        text: the cell.
        decimal: the decimal mark.
        thousands: the thousands mark, which must stand before each three digits; None accepts a
            comma, an apostrophe or a blank there, where that is not the decimal mark.
        nil: what stands for nobody.
    """
    bare = text.strip().strip(BLANKS)
    if bare and bare in nil:
        return Number(0.0, "nil")
    if bare.casefold() in MISSING:
        return Number(None, "missing")
    if SUPPRESSED.match(bare):
        return Number(None, "suppressed")
    if thousands == decimal:
        decimal = "," if thousands == "." else "."
    bare = bare.replace("\u2212", "-")
    sign, unsigned = ("-", bare[1:]) if bare.startswith("-") else ("", bare.removeprefix("+"))
    whole, mark, fraction = unsigned.partition(decimal)
    if thousands is None:
        marks = (GROUP_MARKS + ".").replace(decimal, "")
    else:
        marks = BLANKS if thousands in BLANKS else thousands
    digits = ungrouped(whole, marks)
    if digits is not None and (not mark or re.fullmatch(r"\d*", fraction)):
        return Number(float(f"{sign}{digits}.{fraction or 0}"), "" if thousands else "grouped")
    plain = f"{sign}{whole}{mark and '.'}{fraction}"
    if (decimal == "." or "." not in bare) and PLAIN_NUMBER.match(plain):
        return Number(float(plain), "")
    return Number(None, "exponent" if EXPONENT_NUMBER.match(bare) else "text")


def ungrouped(whole: str, marks: str) -> str | None:
    """The digits of a number with one of `marks` between its thousands; None if it is not so.

    Groups of two before the last three, as in 12,34,567, are taken too.
    """
    used = {c for c in whole if not c.isdigit()}
    if len(used) != 1 or not used <= set(marks):
        return None
    (mark,) = used
    first, *others = whole.split(mark)
    threes = len(first) <= 3 and all(len(g) == 3 for g in others)
    lakhs = len(others) > 1 and len(first) <= 2 and all(len(g) == 2 for g in others[:-1])
    good = first != "" and first[0] != "0" and len(others[-1]) == 3 and (threes or lakhs)
    return first + "".join(others) if good else None
