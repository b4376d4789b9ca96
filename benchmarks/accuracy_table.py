"""The table of `benchmarks.accuracy`: seeds, families, kinds of settlement, densities, censuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.breakdown import together

EXACT = "exact"
STEPS = ("prepare", "train", "map")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print all that was measured, a family at a time."""
    for family in dict.fromkeys(row["family"] for row in rows):
        of_family = [row for row in rows if row["family"] == family]
        for model, census in dict.fromkeys((row["model"], row["census"]) for row in of_family):
            some = [r for r in of_family if (r["model"], r["census"]) == (model, census)]
            print(f"\n{family} family, {model}, census {census}\n")
            for line in (
                *seeds(some),
                "",
                *classes(some, "kinds"),
                "",
                *classes(some, "densities"),
            ):
                print(line, flush=True)
        for line in losses(of_family):
            print(line, flush=True)


def seeds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a seed, their mean and the worst."""
    found = [
        f"{'seed':>6}  ratio  known  RMSE adjusted / built-up  R2 map / built-up   total"
        "  extractor F1  " + "  ".join(f"{step:>7}" for step in STEPS)
    ]
    for row in rows:
        took = [row["seconds"].get(step) for step in STEPS]
        seconds = "  ".join(f"{'-':>7}" if s is None else f"{s:5.0f} s" for s in took)
        found.append(
            f"{row['seed']:6d}  {row['ratio']:.3f}  {row['limit']:.3f}  "
            f"{row['adjusted_rmse']:13.2f} / {row['builtup_rmse']:<8.2f}  "
            f"{row['map_r2']:9.3f} / {row['builtup_r2']:.3f}  {row['total']:+6.1%}  "
            f"{row['extractor']['f1']:12.3f}  {seconds}"
        )
    ratios, limits = ([row[name] for row in rows] for name in ("ratio", "limit"))
    worst = max(rows, key=lambda row: row["ratio"])
    found.append(f"{'mean':>6}  {sum(ratios) / len(rows):.3f}  {sum(limits) / len(rows):.3f}")
    found.append(f"{'worst':>6}  {worst['ratio']:.3f}  (seed {worst['seed']})")
    return found


def classes(rows: Sequence[Mapping[str, Any]], of: str) -> list[str]:
    """A line a kind of settlement or class of density, over all seeds."""
    said = {"kinds": "hectares mostly of", "densities": "people per hectare"}[of]
    found = [
        f"{said:20s} hectares    people     off  RMSE adjusted / built-up  ratio  of the error"
    ]
    merged = together([row[of] for row in rows])
    squares = sum(each["hectares"] * each["rmse"] ** 2 for each in merged.values())
    for name, each in merged.items():
        share = each["hectares"] * each["rmse"] ** 2 / max(squares, 1e-9)
        ratio = each["rmse"] / each["builtup_rmse"] if each["builtup_rmse"] else float("nan")
        found.append(
            f"{name:20s} {each['hectares']:8.0f}  {each['people']:8.0f}  {each['off']:+6.1f}  "
            f"{each['rmse']:13.2f} / {each['builtup_rmse']:<8.2f} {ratio:6.3f}  {share:12.0%}"
        )
    return found


def losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each census that errs costs, beside the exact one; nothing where there is none."""
    exact = {(row["model"], row["seed"]): row for row in rows if row["census"] == EXACT}
    others = [r for r in rows if r["census"] != EXACT and (r["model"], r["seed"]) in exact]
    if not others:
        return []
    found = ["", f"{'census':36s} {'model':12s} seed  RMSE exact -> so    loss   ratio exact -> so"]
    for row in others:
        before = exact[row["model"], row["seed"]]
        exactly, so = before["adjusted_rmse"], row["adjusted_rmse"]
        found.append(
            f"{row['census']:36s} {row['model']:12s} {row['seed']:4d}  {exactly:8.2f} -> {so:<8.2f}"
            f"{so / exactly - 1:+6.1%}   {before['ratio']:.3f} -> {row['ratio']:.3f}"
        )
    return found
