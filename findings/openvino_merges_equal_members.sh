#!/bin/sh
# OpenVINO 2026.4.1 (CPU plugin): branches of a graph that hold equal weights are computed once.
#
# An ensemble is timed before its members are trained by laying copies of one network side by side
# in a graph. What comes out is right, and the time is that of one network: when the graph is
# compiled, constants of equal content are taken for one, and then every layer that has the same
# input and the same constant. One weight that differs, by any amount, keeps the branches apart.
# So a benchmark of an ensemble needs members that differ in every layer.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.4
cat > "$folder/look.py" <<'PY'
import sys

import numpy as np

sys.modules["openvino_telemetry"] = None
import openvino as ov
import openvino.opset13 as op

BRANCHES = 5


def convolutions(weights):
    """How many are left when five branches of two layers are compiled, and what they give."""
    x = op.parameter([1, 4, 32, 32], np.float32)
    branches = []
    for first, second in weights:
        y = x
        for weight in (first, second):
            y = op.relu(op.convolution(y, op.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1]))
        branches.append(y)
    model = ov.Core().compile_model(ov.Model([op.concat(branches, 1)], [x], "m"), "CPU")
    kinds = [
        str(one.get_rt_info()["layerType"].value)
        for one in model.get_runtime_model().get_ops()
        if "layerType" in one.get_rt_info()
    ]
    out = model(np.ones((1, 4, 32, 32), np.float32))[0]
    return kinds.count("Convolution"), out.shape[1]


noise = np.random.default_rng(0)
first = noise.standard_normal((8, 4, 3, 3)).astype(np.float32)
second = noise.standard_normal((8, 8, 3, 3)).astype(np.float32)
equal = [(first.copy(), second.copy()) for _ in range(BRANCHES)]
other = [(first + np.float32(1e-3) * n, second) for n in range(BRANCHES)]
found = {"equal": convolutions(equal), "first layer differs": convolutions(other)}
print("openvino", ov.__version__, found)
expected = {"equal": (2, 8 * BRANCHES), "first layer differs": (2 * BRANCHES, 8 * BRANCHES)}
sys.exit(found != expected)
PY
"$folder/venv/bin/python" "$folder/look.py" || {
    echo "changed: equal branches are no longer computed once" >&2
    exit 1
}
echo "as described: five branches of equal weights are compiled to one"
