"""Which versions and left-overs may go.

A version stays while anything that counts needs it: every partition's current versions and its
newest few, one that was rejected until a better one is made, all of a partition that has lost its
LATEST, whatever a promotion ledger names, what is younger than a stated age or might be in the
hands of a run under way; and, through the inputs in their manifests, earlier manifests included,
all that these were made from. So what is kept can always be traced to its sources. A superseded
version whose manifest cannot be read has lost its own trace: while nothing names it, it stays as
long as its age says and nothing stays for its sake.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from popcorn_assets.store.versions import LATEST, MANIFEST, Address, Store
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
        StoreError: something that counts cannot say what it was made from, so that nothing can
            be said to be needless.
    """
    now = time.time() if now is None else now
    horizon = min(now - older_than_days * DAY_S, now if in_use_since is None else in_use_since)
    found = {version.key: version for version in versions(store)}
    promoted = set(ledger)
    reasons = _roots(found, keep, horizon, promoted)
    for key in reachable(found, reasons):
        reasons.setdefault(key, "what those were made from")
    for key in _untraceable(found, reasons, promoted):
        reasons[key] += f"; {key[0]} {key[1]} has no readable manifest, and nothing stays for it"
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
            f"{'rejected' if version.rejected else 'superseded'} {days[version.key]:.0f} days ago, "
            "and nothing that is kept needs it",
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
        for version in sorted(those, key=_last_to_go)[: max(keep, 1)]
    }
    current = _with_current(found)
    for key, version in found.items():
        if version.superseded is None:
            reasons[key] = "current"
        elif version.attempt:
            reasons[key] = "rejected by its checks, and nothing newer was made: to be looked at"
        elif version.address not in current and not version.rejected:  # any of them may have been
            reasons[key] = f"{LATEST} of {version.address} is gone: materialise it again"
        elif key in ledger:
            reasons[key] = "named by a promotion"
        elif key in chosen:
            reasons[key] = "among the newest of its partition"
        elif max(version.superseded, version.made) >= horizon:
            reasons[key] = "too young, or in use by a run"
    return reasons


def _last_to_go(version: Kept) -> tuple[bool, bool]:
    """The current version first; one that was rejected or cannot be read takes no other's place."""
    return version.superseded is not None, version.rejected or UNREADABLE in version.inputs


def _with_current(found: dict[Key, Kept]) -> set[Address]:
    return {version.address for version in found.values() if version.superseded is None}


def _untraceable(found: dict[Key, Kept], kept: Iterable[Key], promoted: set[Key]) -> list[Key]:
    """Superseded versions that cannot say what they were made from, and that nothing names.

    Raises:
        StoreError: another cannot say it: one that is or may have been current, that a promotion
            names, or that something kept was made from.
    """
    kept, current = sorted(kept, key=str), _with_current(found)
    named: dict[Key, str] = dict.fromkeys(promoted, "a promotion")
    for key in kept:
        for other in found[key].inputs - {key}:
            named.setdefault(other, f"{key[0]} {key[1]}")
    nobodys = []
    for key in kept:
        version = found[key]
        if UNREADABLE not in version.inputs:
            continue
        if version.superseded is not None and version.address in current and key not in named:
            nobodys.append(key)
            continue
        again = f"materialise {key[0]} again"
        if key in named:  # only equal contents make this very version good
            again = (
                f"{again}, if that makes equal contents; where neither can be done, move the "
                f"version's folder out of the store, after which {named[key]} cannot be traced "
                f"beyond it"
            )
            if version.superseded is None:
                again = f"{again}, and {key[0]} is to be materialised again"
        raise StoreError(
            f"version {key[1]} of {key[0]} does not say what it was made from; nothing was removed",
            where=version.path / MANIFEST,
            expected="a manifest that lists its inputs",
            found=f"none that can be read, and {named[key]} names it" if key in named else None,
            remedy=f"restore the manifest from a backup, or {again}",
        )
    return nobodys


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
