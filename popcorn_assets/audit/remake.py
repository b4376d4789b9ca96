"""`python -m popcorn_assets.audit.remake ASSET COUNTRY YEAR`: one asset, in an instance of its own.

Run by `reproduce`, with POPCORN_DATA naming a store of the inputs alone.
"""

import sys

import dagster as dg


def main(asset: str, country: str, year: str) -> int:
    """Materialise the asset; 0 when it was published."""
    from popcorn_assets.definitions import defs
    from popcorn_assets.partitions import partition_key
    from popcorn_assets.resources import StoreResource

    assets = [one for one in defs.assets or () if isinstance(one, dg.AssetsDefinition)]
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            assets,
            selection=[asset],
            partition_key=partition_key(country, int(year)) if country else None,
            instance=instance,
            resources={**(defs.resources or {}), "store": StoreResource()},
            raise_on_error=False,
        )
    for event in done.all_events:
        if event.event_type_value == "STEP_FAILURE":
            error = event.step_failure_data.error
            if error is not None:
                print((error.cause or error).message, file=sys.stderr)
    return 0 if done.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
