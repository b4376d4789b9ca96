"""What an operator is told on an asset's page: what to look at, and what to do when it is red.

Dagster has no page for a group; what holds for a group is said on the page of each of its assets.
"""

from __future__ import annotations

from popcorn_ml.sentinel import SEASONS, SENSORS

_SEASON = (
    "the picture: no stripes, no clouds, no holes where people live. Then `nodata share`, and "
    "`clear observations, median`: three and more are good, of one a cloud may be left."
)

LOOK = {
    **{f"{sensor}_{season}": _SEASON for sensor in SENSORS for season in SEASONS},
    **{
        f"{sensor}_composites": "`where pixels come from`: what is `observed` is the season's own, "
        "the rest is filled from elsewhere and less sure. `largest empty share` is what stays "
        "without a value, and so without people."
        for sensor in SENSORS
    },
    "census_units": "`levels`: the number of units is the one you expect, `merged` and "
    "`geometry_findings` are few. The picture: the borders lie where the country is.",
    "census_counts": "`people`: the total is the one you know from the census office. `levels`: no "
    "rows unmatched, no units without a count.",
    "builtup_extractor": "`extractors`: `published` is there, which every real country needs.",
    "builtup_area": "the picture: towns are bright, water and fields are dark. A bright desert, "
    "coast or river bed will be given people.",
    "checkpoints": "the loss curves: they fall and flatten. `held-out loss`, `held-out total "
    "ratio` (near 1) over units that a member never saw; members that differ much are unsure.",
    "student": "`units that neither saw`: the student beside the Bag that taught it, on units that "
    "it never saw; a tenth worse is too much. The loss curve: it falls and flattens. `not trained` "
    "says why there is none.",
    "deployed_model": "`model` and `reason`: which model maps this country-year, and who "
    "decided it. `candidates`: what else there is, and how it does.",
    "population_map": "the picture beside that of `builtup_area`: people where buildings are. "
    "`people on the grid` beside the census: within a few per cent is good, a fifth off says "
    "that the model does not fit this place.",
    "adjusted_map": "`people in census units` is the census' total. `predicted before adjustment` "
    "is what the model said. `units that fell back` were placed without it.",
    "hectare_map": "the picture and `people in census units`: the product. `intervals hold`: near "
    "80 and 95 % they can be trusted; of the hectares not `to be used at this scale` only the sum "
    "over a larger area can.",
    "evaluation": "`out of fold`: R2 and MAE of units that no member had seen, the honest score. "
    "`metrics`: the map must beat `uniform` and `builtup`.",
    "change": "`significant`: hectares that gained or lost more than the maps' errors explain. "
    "`not compared` says why there is nothing to tell.",
    "publication": "`report` and `web map`: open them as whoever gets them will. `left out` says "
    "what is missing in them, and why.",
}
"""Asset -> what to look at."""

RED = {
    "imagery": "a failed step names the source and what it said: when it did not answer, "
    "materialise the same partition again, and it goes on where it stopped; `popcorn doctor "
    "COUNTRY --connect` asks each service. A red check means too little or odd imagery: allow "
    "more scenes or a higher share of nodata in the country's file, or take another source.",
    "census": "the check names file and row. Correct the file and put it into "
    "`data/inbox/COUNTRY/`, or say in the country's file how it is to be read; then the job "
    "`census`. Nothing is trained or adjusted on counts that failed.",
    "builtup": "when the extractor is missing: `popcorn weights fetch`. Otherwise the step names "
    "the file or the memory that it lacked; materialise it again when that is mended.",
    "training": "the step names the member and why it ended; materialise again, and it goes on "
    "from its last epoch. Red checks mean that the model is no good: look for census units that "
    "are wrong or in the wrong place before training longer. Maps keep the model in use until a "
    "better one is promoted.",
    "maps": "the check says which units or pixels, and what to do. What failed is kept to be "
    "looked at and not published; the map from before stays. Mend what it was made from, then the "
    "job `refresh`; where only the census changed, `publish`.",
    "evaluation": "errors mean that the scores cannot be believed; the remedy is in the check's "
    "text. Warnings mean a map to be used with care: say so to whoever gets it.",
    "publication": "nothing was published anew, and what others have stays as it is. The step "
    "names what does not belong together; materialise that again, then the job `publish`.",
}
"""Group -> what to do when one of its assets, or a check of one, is red."""


def guided(description: str, asset: str, group: str) -> str:
    """An asset's description, with what to look at and what to do."""
    parts = [description.strip()]
    if asset in LOOK:
        parts.append(f"**Look at** {LOOK[asset]}")
    if group in RED:
        parts.append(f"**When it is red:** {RED[group]}")
    return "\n\n".join(parts)
