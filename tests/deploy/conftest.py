"""The platform of one test's own, as the assets' tests have it."""

from __future__ import annotations

from tests.assets.conftest import place

__all__ = ["place"]
