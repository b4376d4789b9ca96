"""Asking a STAC API for the items of a season over a country."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from popcorn_ml.errors import ImageryError, ProviderDown
from popcorn_ml.imagery.backoff import RETRY_STATUS
from popcorn_ml.imagery.secrets import scrub
from popcorn_ml.sentinel import Period

PAGE_ITEMS = 250


def search(
    url: str,
    collection: str,
    box: tuple[float, float, float, float],
    period: Period,
    *,
    retries: int = 6,
    timeout_s: float = 60.0,
) -> Iterator[dict[str, Any]]:
    """Items of a collection that meet a box within a period, as dictionaries, in no fixed order.

    Args:
        url: of the STAC API.
        box: west, south, east, north in degrees.
        period: its end is exclusive: asked for is the last microsecond before it.
        retries: repetitions of a request after a server error.

    Raises:
        ImageryError: the catalogue cannot be reached, or answers with an error.
    """
    import requests
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    again = Retry(
        total=retries,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        status_forcelist=[408, 429, 500, 502, 503, 504],
        allowed_methods=None,
    )
    try:
        client = Client.open(url, stac_io=StacApiIO(max_retries=again, timeout=timeout_s))
        found = client.search(
            collections=[collection],
            bbox=list(box),
            datetime=f"{stamp(period.start)}/{stamp(period.end - timedelta(microseconds=1))}",
            limit=PAGE_ITEMS,
        )
        yield from found.items_as_dicts()
    except (APIError, requests.RequestException, KeyError, ValueError) as error:
        status = getattr(error, "status_code", None)  # None: no answer at all
        down = not isinstance(error, KeyError | ValueError) and (status or 500) in RETRY_STATUS
        kind = ProviderDown if down else ImageryError
        raise kind(
            f"the catalogue did not answer about {collection}",
            where=url,
            found=scrub(str(error)) or type(error).__name__,
            remedy="check the network and the address; finished tiles are kept, so run again later",
        ) from None


def stamp(moment: datetime) -> str:
    """A moment in UTC down to the microsecond, which pystac-client leaves as it is.

    A date without time would be stretched to the end of its day, and days at the border would
    fall into two seasons.
    """
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
