"""The errors this project raises on bad input, each saying what was wrong, where, and what to do.

Programming mistakes raise Python's own errors; these are for what an operator can put right.
"""

from __future__ import annotations

from pathlib import Path


class PopcornError(Exception):
    """Something an operator can put right.

    Args:
        what: one sentence saying what is wrong.
        where: the file, row, asset or setting it was found in.
        expected: what would have been right.
        found: what was there instead.
        remedy: what to do next, in the imperative.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.expected = what, where, expected
        self.found, self.remedy = found, remedy
        lines = [what if where is None else f"{where}: {what}"]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if found is not None:
            lines.append(f"  found:    {found}")
        if remedy is not None:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))

    def __reduce__(self):  # keyword arguments survive the trip between processes
        return _rebuild, (
            type(self),
            self.what,
            self.where,
            self.expected,
            self.found,
            self.remedy,
        )


def _rebuild(cls, what, where, expected, found, remedy):
    return cls(what, where=where, expected=expected, found=found, remedy=remedy)


class Transient(PopcornError):
    """Mixed into errors that may be gone when the same is tried again later."""


class ConfigError(PopcornError):
    """A country file, a setting or a command line that cannot be used."""


class RasterError(PopcornError):
    """A raster that is missing, unreadable, truncated or not what its place promises."""


class GridMismatch(RasterError):
    """A raster whose CRS, origin, pixel size or shape is not the country's."""


class ImageryError(PopcornError):
    """A source of imagery that has nothing, refuses, or answers with something unusable."""


class ProviderDown(ImageryError, Transient):
    """A source of imagery that does not answer, or answers with errors of its own."""


class CensusError(PopcornError):
    """Census input that cannot be trained on or evaluated against."""


class AgencyDown(CensusError, Transient):
    """An agency's service that does not answer, or asks to be left alone for a while."""


class WeightsError(PopcornError):
    """Network weights that are missing, altered or of another architecture."""


class TrainingError(PopcornError):
    """A training that cannot go on, such as one whose loss is no longer a number."""


class ComputeError(PopcornError):
    """Work that a process or a machine did not bring to its end."""


class LostConnection(ComputeError, Transient):
    """Work whose outcome is unknown because the connection to a cluster broke."""


class ExportError(PopcornError):
    """A folder that cannot be exported to, or files that are not what was published."""


class StoreError(PopcornError):
    """A stored version that is missing, incomplete or not what its manifest says."""


class Unread(StoreError):
    """Something stored that could not be looked at now, which says nothing of what it holds."""


class NoLocks(Unread):
    """Files that cannot be locked, because their file system has no locks."""
