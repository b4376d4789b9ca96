"""How a country's student is trained: a section of its file."""

from __future__ import annotations

from pydantic import Field

from popcorn_assets.countries.grid import Section
from popcorn_ml.student.spec import MAX_SEED, StudentSpec


class StudentSettings(Section):
    """How a country's student is trained, where `model` says `kind: student`.

    Attributes:
        steps: of each of its trainings: one that never saw the units of a fold for each fold, and
            the one that maps. None: as many as the sensors it looks at need.
        seed: of first weights and draws.
    """

    steps: int | None = Field(None, ge=1, le=1_000_000)
    seed: int = Field(StudentSpec.seed, ge=0, le=MAX_SEED)
