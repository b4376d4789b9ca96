#!/usr/bin/env bash
# What surprised: SciPy's simplex search reports success without having moved from a zero.
#
# `minimize(method="Nelder-Mead")` builds its first simplex from the starting point: a coordinate
# that is not zero is stretched by a twentieth, one that is exactly zero is moved by 0.00025,
# whatever the scale of the problem. With tolerances above that, as they are usual for logarithms of
# a model's constants (a median of 1 is a logarithm of 0), such a coordinate is converged before
# the search begins. This script minimises one plain bowl from starting points that differ by where
# zeros stand, and asks how far from the minimum each search ends; and once more with a first
# simplex of its own.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "scipy==1.17.1" "numpy==2.4.6"
cat > "$folder/bowl.py" <<'PYTHON'
import sys

import numpy as np
import scipy
from scipy.optimize import minimize

GOAL = np.array([1.0, 1.5])


def bowl(x):
    return float(((x - GOAL) ** 2).sum())


def off(start, **more):
    found = minimize(
        bowl, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3, **more}
    )
    assert found.success, found.message
    return float(np.abs(found.x - GOAL).max()), found.nfev


if __name__ == "__main__":
    zeros, calls = off([0.0, 0.0])
    beside, _ = off([0.1, 0.1])
    given, _ = off([0.0, 0.0], initial_simplex=[[0, 0], [1, 0], [0, 1]])
    print(
        f"scipy {scipy.__version__}, distance to the minimum where success is reported: from "
        f"(0, 0) {zeros:.3f} after {calls} calls; from (0.1, 0.1) {beside:.5f}; from (0, 0) with "
        f"a first simplex given {given:.5f}"
    )
    if zeros < 0.1 or beside > 0.01 or given > 0.01:
        sys.exit("changed: the search leaves a zero, or no longer ends where it should")
    print("as described: from zeros success is reported where the search began")
PYTHON
"$folder/venv/bin/python" "$folder/bowl.py"
