"""What an audit says of a thing: a verdict, what it is about, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """OK, three that say the record cannot be trusted, one of what could not be looked at, and two
    that say to look closer."""

    OK = "ok"
    CHANGED = "changed"
    MISSING = "missing"
    UNRECORDED = "unrecorded"
    NOT_JUDGED = "not judged"
    FOREIGN_CODE = "made by code that is not in the repository"
    OLDER = "older than its input"

    @property
    def wrong(self) -> bool:
        """Whether an audit with such a finding fails; the others only warn."""
        return self in (Verdict.CHANGED, Verdict.MISSING, Verdict.UNRECORDED)


_ORDER = list(Verdict)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was recorded, or a remark (`OK`) on one that is.

    Attributes:
        about: the file, table or record.
        message: what was expected and what is there.
    """

    verdict: Verdict
    about: str
    message: str

    def __str__(self) -> str:
        return f"{self.about}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        """Plain values."""
        return {"verdict": str(self.verdict), "about": self.about, "message": self.message}


def verdict_of(findings: list[Finding]) -> Verdict:
    """The one word for several findings: what is wrong comes before what is only doubtful."""
    found = [finding.verdict for finding in findings if finding.verdict is not Verdict.OK]
    wrong = [verdict for verdict in found if verdict.wrong]
    return min(wrong or found, key=_ORDER.index, default=Verdict.OK)
