"""How small values travel between the steps of a graph-backed asset: as JSON, never pickled."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.paths import data_root
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
        """Read what an upstream step wrote."""
        upstream = context.upstream_output
        assert upstream is not None
        return json.loads(self._path(upstream).read_text("utf-8"))

    @staticmethod
    def _path(context: dg.OutputContext) -> Path:
        parts = [context.run_id, context.step_key, context.name, context.mapping_key or "value"]
        names = [part.replace("/", "_") for part in parts]
        return data_root() / ".work" / "steps" / Path(*names).with_suffix(".json")
