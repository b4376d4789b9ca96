"""Opening the source of imagery that a country's settings choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from popcorn_ml.imagery.source import Source
from popcorn_ml.imagery.source_modules import source_module

if TYPE_CHECKING:
    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings


def open_source(
    settings: ImagerySettings, secrets: Secrets | None = None, workers: int = 2
) -> Source:
    """The source that the settings choose, ready to be asked.

    Args:
        settings: of the country.
        secrets: credentials, for the sources that need them.
        workers: processor cores that this source may keep busy.
    """
    from popcorn_ml.imagery.secrets import Secrets

    module = source_module(settings.source)
    return module.open_source(settings.chosen, settings, secrets or Secrets(), workers)
