"""How long to wait before a request is sent again: twice as long each time, with jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers after which the same request may succeed."""


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff.

    Attributes:
        retries: repetitions after the first try.
        first_s: mean wait before the first repetition.
        longest_s: no wait is longer.
        sleep: what waits; tests measure through it.
    """

    retries: int = 6
    first_s: float = 0.5
    longest_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def attempts(self) -> Iterator[int]:
        """0, 1, ... up to `retries`, waiting before each but the first.

        The wait is drawn from half to one and a half times first_s x 2^n, so that many workers
        refused at once do not come back at once (it decides when, never what).
        """
        yield 0
        for number in range(self.retries):
            mean = min(self.first_s * 2**number, self.longest_s)
            self.sleep(min(mean * random.uniform(0.5, 1.5), self.longest_s))
            yield number + 1
