"""Text as statistics offices write it: encodings, delimiters, identifiers, names, numbers.

Pure functions of bytes and strings; reading files is in `tables`.
"""

from __future__ import annotations

import codecs
import csv
import re
import unicodedata
from dataclasses import dataclass

DELIMITERS = (",", ";", "\t", "|")
MISSING = frozenset(
    {"", "-", "--", "–", "—", ".", "..", "...", ":", "na", "n/a", "n.a.", "n.d.", "nan", "null"}
    | {"none", "nd", "missing", "#n/a", "x"}
)
SUPPRESSED = re.compile(r"^(<\s*\d+|\*+|c|\(d\)|s)$", re.IGNORECASE)
PLAIN_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)$")
GROUPED_NUMBER = re.compile(r"^[+-]?\d{1,3}([,'\u2019 \u00a0\u2009\u202f]\d{3})+(\.\d+)?$")
EXPONENT_NUMBER = re.compile(r"^[+-]?\d+(\.\d+)?[eE][+-]?\d+$")
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
    """The delimiter that cuts the first lines into most columns, all lines into as many.

    Quotes are honoured. None where no candidate cuts the header at all.
    """
    lines = [line for line in text.splitlines()[:60] if line.strip()]
    best: tuple[float, int, str] | None = None
    for candidate in DELIMITERS:
        widths = [len(row) for row in csv.reader(lines, delimiter=candidate)]
        if not widths or widths[0] < 2:
            continue
        agreeing = sum(width == widths[0] for width in widths) / len(widths)
        if best is None or (agreeing, widths[0]) > best[:2]:
            best = (agreeing, widths[0], candidate)
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


def name_key(value: object) -> str:
    """A name reduced to what two spellings of it share.

    Case, accents, hyphens, apostrophes, full stops and repeated blanks do not count.
    """
    text = unicodedata.normalize("NFKD", clean_name(value)).casefold().translate(UNDECOMPOSED)
    text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w]+|_", " ", text).split())


@dataclass(frozen=True)
class Number:
    """A number read from text: its value, or why there is none.

    `problem` is one of "", "missing", "suppressed", "grouped" (read, by dropping thousands
    separators), "exponent", "text".
    """

    value: float | None
    problem: str


def parse_number(text: str, decimal: str = ".", thousands: str | None = None) -> Number:
    """A count as agencies write it.

    Args:
        text: the cell.
        decimal: the decimal mark.
        thousands: the thousands mark; None accepts a comma, an apostrophe or a blank between
            groups of three where that cannot be read as a decimal number.
    """
    bare = text.strip().strip("\u00a0\u202f")
    if bare.casefold() in MISSING:
        return Number(None, "missing")
    if SUPPRESSED.match(bare):
        return Number(None, "suppressed")
    if thousands:
        bare = bare.replace(thousands, "")
    if decimal != ".":
        if "." in bare:
            return Number(None, "text")
        bare = bare.replace(decimal, ".")
    if PLAIN_NUMBER.match(bare):
        return Number(float(bare), "")
    if GROUPED_NUMBER.match(bare) and not thousands and decimal == ".":
        return Number(float(re.sub(r"[^\d.+-]", "", bare)), "grouped")
    if EXPONENT_NUMBER.match(bare):
        return Number(None, "exponent")
    return Number(None, "text")
