"""OpenVINO, imported so that it reports to nobody.

Importing openvino 2026.4.1 sends an event to its makers, from a forked process, unless a file in
the home folder says otherwise. Without the package `openvino_telemetry`, which it then takes to be
missing, it falls back to a stub. Nothing else of the project imports openvino.
"""

from __future__ import annotations

import sys

_TELEMETRY = "openvino_telemetry"

_loaded = _TELEMETRY in sys.modules
if not _loaded:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # says: there is none
try:
    import openvino as ov
    import openvino.opset13 as op
finally:
    if not _loaded:
        del sys.modules[_TELEMETRY]

__all__ = ["op", "ov"]
