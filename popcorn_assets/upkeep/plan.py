"""Which versions and left-overs may go.

A version stays while anything that counts needs it: every partition's current versions and its
newest few, all of a partition that has lost its LATEST, whatever a promotion ledger names, what
is younger than a stated age or might be in the hands of a run under way; and, through the inputs
in their manifests, earlier manifests included, all that these were made from. So what is kept can
always be traced to its sources.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from popcorn_assets.store import LATEST, MANIFEST, Address, Store
from popcorn_assets.upkeep.inventory import UNREADABLE, Kept, Key, reachable, versions
from popcorn_assets.upkeep.leftovers import leftovers
from popcorn_assets.upkeep.removal import Removal
from popcorn_ml.errors import StoreError

DAY_S = 86_400.0


@dataclass(frozen=True)
class Plan:
    """What may be removed, in the order in which it is safe to, and what stays and why.

    Attributes:
        stays: reason -> number of versions and their bytes.
    """

    removals: list[Removal]
    stays: dict[str, tuple[int, int]]

    @property
    def size(self) -> int:
        return sum(removal.size for removal in self.removals)


def plan(
    store: Store,
    *,
    keep: int = 1,
    older_than_days: float = 30.0,
    ledger: Iterable[Key] = (),
    in_use_since: float | None = None,
    unfinished_runs: Iterable[str] = (),
    now: float | None = None,
) -> Plan:
    """What could be removed now; removes nothing.

    Args:
        keep: newest versions of each partition to keep, the current one counted.
        older_than_days: what was superseded, or last used, later than this many days ago stays.
        ledger: versions that promotions name.
        in_use_since: when the oldest run that has not finished began, seconds since 1970: what
            was current or in use since then may be in its hands.
        unfinished_runs: runs, and those they repeat, whose steps' values stay.

    Raises:
        StoreError: something that stays cannot say what it was made from, so that nothing can be
            said to be needless.
    """
    now = time.time() if now is None else now
    horizon = min(now - older_than_days * DAY_S, now if in_use_since is None else in_use_since)
    found = {version.key: version for version in versions(store)}
    reasons = _roots(found, keep, horizon, set(ledger))
    _require_readable(found, reasons)
    for key in reachable(found, reasons):
        reasons.setdefault(key, "what those were made from")
    going = [version for key, version in found.items() if key not in reasons]
    stays: dict[str, tuple[int, int]] = {}
    for key, reason in reasons.items():
        count, size = stays.get(reason, (0, 0))
        stays[reason] = count + 1, size + found[key].size
    days = {version.key: (now - (version.superseded or version.made)) / DAY_S for version in going}
    removals = [
        Removal(
            "version",
            version.path,
            version.size,
            f"superseded {days[version.key]:.0f} days ago, and nothing that is kept needs it",
            version,
        )
        for version in _dependents_first(going)
    ]
    left = leftovers(store, now, horizon, set(unfinished_runs))
    return Plan([*removals, *left], stays)


def _roots(found: dict[Key, Kept], keep: int, horizon: float, ledger: set[Key]) -> dict[Key, str]:
    """Versions that stay for their own sake, and why."""
    reasons: dict[Key, str] = {}
    newest: dict[Address, list[Kept]] = {}
    for version in sorted(found.values(), key=lambda v: v.made, reverse=True):
        newest.setdefault(version.address, []).append(version)
    chosen = {
        version.key
        for those in newest.values()
        for version in sorted(those, key=lambda v: v.superseded is not None)[: max(keep, 1)]
    }
    current = {version.address for version in found.values() if version.superseded is None}
    for key, version in found.items():
        if version.superseded is None:
            reasons[key] = "current"
        elif version.address not in current:  # any of them may have been
            reasons[key] = f"{LATEST} of {version.address} is gone: materialise it again"
        elif key in ledger:
            reasons[key] = "named by a promotion"
        elif key in chosen:
            reasons[key] = "among the newest of its partition"
        elif max(version.superseded, version.made) >= horizon:
            reasons[key] = "too young, or in use by a run"
    return reasons


def _require_readable(found: dict[Key, Kept], roots: Iterable[Key]) -> None:
    for key in sorted(reachable(found, roots), key=str):
        if UNREADABLE in found[key].inputs:
            raise StoreError(
                f"version {key[1]} of {key[0]} does not say what it was made from; "
                "nothing was removed",
                where=found[key].path / MANIFEST,
                expected="a manifest that lists its inputs",
                remedy=f"materialise {key[0]} again, or what was made from this version; "
                "or restore the manifest from a backup",
            )


def _dependents_first(going: list[Kept]) -> list[Kept]:
    """The same, each before those it was made from."""
    among = {version.key: version for version in going}
    ordered: list[Kept] = []
    done: set[Key] = set()
    for start in sorted(among, key=str):
        stack: list[tuple[Key, bool]] = [(start, False)]
        while stack:
            key, expanded = stack.pop()
            if expanded:
                ordered.append(among[key])
            elif key not in done:
                done.add(key)
                stack.append((key, True))
                inputs = sorted(among[key].inputs, key=str)
                stack += [(other, False) for other in inputs if other in among]
    return ordered[::-1]  # inputs come first in `ordered`
