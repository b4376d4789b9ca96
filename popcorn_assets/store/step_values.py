"""How small values travel between the steps of a graph-backed asset: as JSON, never pickled.

They lie at `<store>/.work/steps/<run id>/`. A run that succeeded needs its folder no more; one that
failed needs it for as long as somebody may re-execute it from failure, which reads what its
successful steps left. Removing a folder too early costs the work of that run's members, no result.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.paths import data_root
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_json


class JsonIOManager(dg.ConfigurableIOManager):
    """Step outputs as JSON files under the store's work folder, by run and step.

    Assets hand their data over through the store; only plans and results of mapped steps come
    this way.
    """

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an output; None, which assets without a value give, is not written."""
        if obj is None:
            return
        path = self._path(context)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read what an upstream step wrote.

        Raises:
            StoreError: it is not there any more.
        """
        upstream = context.upstream_output
        assert upstream is not None
        path = self._path(upstream)
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"what step {upstream.step_key} of run {upstream.run_id[:8]} left for the next one "
                "is gone",
                where=path,
                found=str(error),
                remedy="start a new run of this partition instead of re-executing from failure",
            ) from error

    @staticmethod
    def _path(context: dg.OutputContext) -> Path:
        parts = [context.run_id, context.step_key, context.name, context.mapping_key or "value"]
        names = [part.replace("/", "_") for part in parts]
        return data_root() / ".work" / "steps" / Path(*names).with_suffix(".json")
