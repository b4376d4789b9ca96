"""Explicit decisions about models from the UI's launchpad: what `popcorn promote` does, as jobs."""

from typing import Any

import dagster as dg
from pydantic import Field

from popcorn_assets.promotion.by_hand import promote, roll_back
from popcorn_assets.promotion.candidates import candidates
from popcorn_assets.promotion.entries import Entry
from popcorn_assets.promotion.who import launched_by
from popcorn_assets.resources import StoreResource
from popcorn_assets.show import markdown_table


class PromoteConfig(dg.Config):
    """Which checkpoints to put in use, and why."""

    country: str = Field(description="Code of the mapped country.")
    source: str = Field(
        description="Trained country and year, 'demo|2020' or 2020; a version after @ if not the "
        "current one is meant, and the word student before it for a student."
    )
    year: int | None = Field(None, description="Mapped year it is for; all years without it.")
    force: bool = Field(False, description="Also if worse or not comparable; needs a reason.")
    reason: str = Field("", description="Why.")
    transfer: bool = Field(False, description="Checkpoints of another country are meant.")
    who: str = Field("", description="Your name: Dagster does not know who is at the launchpad.")


class RollBackConfig(dg.Config):
    """Which model to go back to, and why."""

    country: str = Field(description="Code of the mapped country.")
    to: str = Field(
        "", description="Ledger entry (number or id) or version; the one before without it."
    )
    year: int | None = Field(None, description="Mapped year; those of the entry without it.")
    reason: str = Field(description="Why.")
    who: str = Field("", description="Your name: Dagster does not know who is at the launchpad.")


@dg.op(description="Put checkpoints in use for a country, and write it into its ledger.")
def promote_checkpoints(
    context: dg.OpExecutionContext, store: StoreResource, config: PromoteConfig
) -> None:
    entry = promote(
        store.open(),
        config.country,
        config.source,
        who=_who(context, config.who),
        year=config.year,
        force=config.force,
        reason=config.reason,
        transfer=config.transfer,
    )
    _tell(context, store, config.country, entry)


@dg.op(description="Put a model in use again that was in use before, and write it into the ledger.")
def roll_back_checkpoints(
    context: dg.OpExecutionContext, store: StoreResource, config: RollBackConfig
) -> None:
    entry = roll_back(
        store.open(),
        config.country,
        who=_who(context, config.who),
        reason=config.reason,
        to=config.to,
        year=config.year,
    )
    _tell(context, store, config.country, entry)


def _who(context: dg.OpExecutionContext, name: str) -> str:
    run = launched_by(context.run)
    return f"{name.strip()}, {run}" if name.strip() else run


def _tell(context: dg.OpExecutionContext, store: StoreResource, country: str, entry: Entry) -> None:
    """What was decided and what is left to do, in the log and as the output's metadata."""
    context.log.info(f"{entry.action}: {entry.model} by ledger entry {entry.id}. {entry.reason}")
    context.log.info(f"maps follow with the next refresh: job refresh, partitions {country}|...")
    metadata: dict[str, Any] = {
        "ledger entry": entry.id,
        "action": entry.action,
        "model": str(entry.model),
        "candidates": dg.MetadataValue.md(markdown_table(candidates(store.open(), country))),
    }
    context.add_output_metadata(metadata)


@dg.job(
    description="To put other checkpoints in use for a country, or another country's; refused if "
    "they do worse on held-out units, unless forced with a reason. The maps follow with the job "
    "refresh. Failed: the step names what is compared and why it was refused. As `popcorn promote`."
)
def promote_model() -> None:
    promote_checkpoints()


@dg.job(
    description="To put a model in use again that was in use before, when maps of the newer one "
    "are no good. The maps follow with the job refresh. Failed: the step names the ledger's "
    "entries to choose from. As `popcorn rollback`."
)
def roll_back_model() -> None:
    roll_back_checkpoints()


jobs = [promote_model, roll_back_model]
