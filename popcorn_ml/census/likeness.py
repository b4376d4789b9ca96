"""The name that a misspelt one most probably means, among very many, for a hint in a message."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

from popcorn_ml.census.text import name_key

COMPARED = 20
"""Names with most letters in a row in common that are compared in full."""
CUTOFF = 0.75


class Names:
    """Names that others are compared with, found by the runs of three letters in them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._written = {key: name for name in names if (key := name_key(name))}
        self._by_run: dict[str, list[str]] = {}
        for key in self._written:
            for run in _runs(key):
                self._by_run.setdefault(run, []).append(key)

    def nearest(self, name: str) -> str | None:
        """The name most like another, if one is alike."""
        key = name_key(name)
        # The rarest runs tell most: the common ones alone make nobody alike.
        runs = sorted(_runs(key), key=lambda run: len(self._by_run.get(run, ())))
        shared: Counter[str] = Counter()
        for run in runs[: max(4, (len(runs) + 1) // 2)]:
            shared.update(self._by_run.get(run, ()))
        few = [other for other, _ in shared.most_common(COMPARED)]
        found = difflib.get_close_matches(key, few, 1, CUTOFF)
        return self._written[found[0]] if found else None


def _runs(key: str) -> set[str]:
    padded = f"  {key} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)} if key else set()
