"""How a country's checkpoints are trained: a section of its file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from popcorn_assets.countries.grid import Section
from popcorn_ml.errors import ConfigError
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training.spec import HeldOut, TrainingSpec

CODE_PATTERN = r"^[a-z][a-z0-9_]{1,30}$"
"""What a country may be called: its file's name."""


class TrainingSettings(Section):
    """How a country's checkpoints are trained; defaults as published (arXiv 2311.14006).

    Attributes:
        countries: whose census units are trained on, all of the same year; with several the model
            is one of all of them. The country's own code may be among them, or not. None: the
            country's own, as a list of its code alone says too.
        members: checkpoints in the ensemble, with seeds `first_seed`, `first_seed` + 1, ...
        initial_bias: first guess at people per built-up pixel; None works it out from the census.
        held_out: "folds": members hold out different units, so that together they predict every
            unit unseen. Where nothing is said it is that, but "same" where `held_out_share` or
            `keep_epoch: best` is given or there is one member, and "none" with a share of 0.
        keep_epoch: "last" where nothing is said, but "best" where the same units are held out.
        leave_out: share of the people that pixels which are hardly built up may hold together for
            them not to be trained on; 0, as published, trains on every pixel.
        The others: as in popcorn_ml.training.spec.TrainingSpec.
    """

    countries: list[Annotated[str, Field(pattern=CODE_PATTERN)]] | None = Field(None, min_length=1)
    members: int = Field(5, ge=1, le=50)
    first_seed: int = Field(1600, ge=0)
    epochs: int = Field(100, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    learning_rate_decay: float = Field(0.75, gt=0, le=1)
    learning_rate_decay_epochs: int = Field(5, ge=1)
    weight_decay: float = Field(1e-5, ge=0)
    gradient_clip: float = Field(0.01, gt=0)
    batch_units: int = Field(2, ge=1)
    initial_bias: float | None = None
    held_out: HeldOut = "folds"
    held_out_share: float = Field(0.1, ge=0, lt=0.9)
    keep_epoch: Literal["best", "last"] = "last"
    stretch: float = Field(1.5, ge=1)
    average_decay: float = Field(0.0, ge=0, lt=1)
    leave_out: float = Field(1e-4, ge=0, le=0.01)
    max_pixels_per_step: int = Field(1_000_000, ge=16_384)

    @model_validator(mode="before")
    @classmethod
    def _what_goes_together(cls, given: Any) -> Any:
        """Fill in what follows from what the file says, one from before there were folds too."""
        if not isinstance(given, dict):
            return given
        held_out = given.get("held_out")
        if held_out is None:
            same = "held_out_share" in given or given.get("keep_epoch") == "best"
            held_out = "same" if same or given.get("members") == 1 else "folds"
            if given.get("held_out_share") == 0:
                held_out = "none"
        keep = "best" if held_out == "same" else "last"
        return {"keep_epoch": keep} | given | {"held_out": held_out}

    @field_validator("countries")
    @classmethod
    def _each_once(cls, codes: list[str] | None) -> list[str] | None:
        if codes and (twice := sorted({code for code in codes if codes.count(code) > 1})):
            raise ValueError(f"each country once; given more than once: {', '.join(twice)}")
        return codes

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        """What a training would refuse is refused here, before hours of imagery."""
        if self.held_out == "folds" and self.members < 2:
            raise ValueError(
                "held_out: folds needs two members, each of which sees what the other "
                "does not; with one write held_out: same"
            )
        season: dict[str, str] = {SEASONS[0]: ""}
        path = ""
        for number in (1, self.members):
            try:
                TrainingSpec(
                    season, season, path, path, path, path, path, path, **self.of_member(number)
                )
            except ConfigError as error:
                raise ValueError(
                    f"{error.what}: expected {error.expected}, found {error.found}"
                ) from error
        return self

    def seeds(self) -> list[int]:
        """One seed a member."""
        return [self.first_seed + i for i in range(self.members)]

    def of_member(self, number: int) -> dict[str, Any]:
        """What a specification says of a member, numbered from 1: its seed, fold and the rest.

        There are as many folds as members: each unit is held out by one, and the more members
        there are, the more each is trained on.
        """
        folds = self.members if self.held_out == "folds" else 0
        return {
            "seed": self.seeds()[number - 1],
            "member": number,
            "folds": folds,
            "fold": number - 1 if folds else 0,
            **self.model_dump(exclude={"members", "first_seed", "countries"}),
        }
