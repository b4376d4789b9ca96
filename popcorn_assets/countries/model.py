"""Which model maps a country: a section of its file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from popcorn_assets.countries.grid import Section

Kind = Literal["bag", "student"]
Sensors = Literal["both", "s2", "s1"]


class ModelChoice(Section):
    """Which country-year's model may map this country, and how a new one takes over.

    Attributes:
        kind: the Bag (the members of `checkpoints`), or the one network that learnt from them
            (`student`), which is trained with them then.
        sensors: what a student looks at: both, Sentinel-2 alone or Sentinel-1 alone. The Bag needs
            both.
        country: where they were trained; None: here. Naming another country states a transfer.
        year: the year they were trained on, for all years mapped; None: each year its own.
        promotion: automatic takes over new checkpoints that are no worse; with manual every
            change is an explicit decision.
        margin: how much worse than the model in use, relative to its held-out loss, new
            checkpoints may be and still take over by themselves; None: as much as chance makes of
            equals, told from the differences between the losses of single units.
    """

    kind: Kind = "bag"
    sensors: Sensors = "both"
    country: str | None = None
    year: int | None = Field(None, ge=1900, le=2999)
    promotion: Literal["automatic", "manual"] = "automatic"
    margin: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _the_bag_needs_both_sensors(self) -> Self:
        if self.kind == "bag" and self.sensors != "both":
            raise ValueError(
                f"sensors: {self.sensors} is for kind: student; the Bag needs both sensors"
            )
        return self
