"""How the numbers of a column are written: which mark stands between thousands, which is decimal.

`11.070` alone may be eleven thousand people or eleven; the column it stands in mostly says which.
Where it does not, no reading is taken. Single numbers are read by `text.parse_number`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from popcorn_ml.census.text import BLANKS, Number, parse_number, ungrouped

DECIMAL_SHARE = 0.05
"""Share of a column's numbers with a mark that can only be fractions, from which all of them are;
fewer may be slips of a hand."""

DASHES = ("-", "--", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2015", "\u2212")


@dataclass(frozen=True)
class Notation:
    """How a column is to be read.

    Attributes:
        decimal, thousands: as for `parse_number`.
        nil: what stands for nobody.
        mark: the mark that was found to stand between thousands, None where the settings said so
            or nothing had to be found out.
        unclear: a mark with which nothing can be read for certain.
        evidence: numbers that speak against reading it as a mark between thousands.
    """

    decimal: str = "."
    thousands: str | None = None
    nil: Collection[str] = ()
    mark: str | None = None
    unclear: str | None = None
    evidence: tuple[str, ...] = ()

    def read(self, cell: str) -> Number:
        """One cell's number; its problem is `unclear` where two readings are left."""
        if self.unclear is not None and ambiguous(cell, self.unclear):
            return Number(None, "unclear")
        return parse_number(cell, self.decimal, self.thousands, self.nil)


def notation(
    cells: Iterable[str],
    decimal: str | None = None,
    thousands: str | None = None,
    nil: Collection[str] = (),
    typed: bool = False,
) -> Notation:
    """How a column of counts is written.

    Args:
        cells: its cells, words among them.
        decimal, thousands: what the settings state; nothing is then found out.
        nil: what stands for nobody; a dash means dashes of every length.
        typed: whether the file holds them as numbers, in which no mark stands between thousands.
    """
    nil = frozenset(nil) | (frozenset(DASHES) if set(nil) & set(DASHES) else frozenset())
    if decimal is not None or thousands is not None:
        other = "," if thousands == "." else "."
        return Notation(decimal or other, thousands, nil)
    found = [_Seen(), _Seen()]
    for cell in cells:
        bare = _bare(cell)
        for mark, other, seen in ((".", ",", found[0]), (",", ".", found[1])):
            seen.look(bare, mark, other)
    stops, commas = found
    if commas.either and commas.fractions:
        return Notation(nil=nil, unclear=",", evidence=tuple(commas.fractions[:3]))
    if not (stops.either or stops.groups):
        return Notation(nil=nil)
    against = stops.fractions + stops.plain
    if not against and not typed and not commas.groups:
        return Notation(",", ".", nil, mark=".")
    dotted = stops.either + stops.groups + len(stops.fractions)
    if not stops.groups and stops.certain >= max(1, DECIMAL_SHARE * dotted):
        return Notation(nil=nil)
    return Notation(nil=nil, unclear=".", evidence=tuple((against or ["a number, not text"])[:3]))


class _Seen:
    """What was seen of one mark in a column.

    Attributes:
        either: numbers such as 11.070, that may be read either way.
        groups: numbers in which the mark can only stand between thousands.
        fractions: numbers in which it can only be the decimal mark.
        certain: how many of these could not be thousands that lost their last zeros.
        plain: numbers of a thousand or more without any mark.
    """

    def __init__(self) -> None:
        self.either = self.groups = self.certain = 0
        self.fractions: list[str] = []
        self.plain: list[str] = []

    def look(self, bare: str, mark: str, other: str) -> None:
        """Take one number into account."""
        whole, found, rest = bare.partition(mark)
        if not found:
            if whole.isdigit() and len(whole) > 3 and whole[0] != "0":
                self.plain.append(bare)
            return
        if other in whole:
            if rest.isdigit() and ungrouped(whole, other):  # as in 1,234.567
                self.fractions.append(bare)
                self.certain += 1
            return
        if other in rest:
            rest, _, fraction = rest.partition(other)
            if fraction.isdigit() and ungrouped(whole + mark + rest, mark):  # as in 1.234,5
                self.groups += 1
            return
        if ungrouped(bare, mark):
            if bare.count(mark) > 1:
                self.groups += 1
            else:
                self.either += 1
        elif (whole.isdigit() or not whole) and rest.isdigit():
            self.fractions.append(bare)
            self.certain += len(rest) > 3 or len(whole) > 3 or whole in ("", "0")


def ambiguous(cell: str, mark: str) -> bool:
    """Whether a number may be read with a mark as decimal and between thousands."""
    bare = _bare(cell)
    return bare.count(mark) == 1 and ungrouped(bare, mark) is not None


def _bare(cell: str) -> str:
    return cell.strip().strip(BLANKS).lstrip("+-\u2212")
