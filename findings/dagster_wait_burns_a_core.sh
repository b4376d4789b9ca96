#!/usr/bin/env bash
# What surprised: a run that only waits for a step's next try keeps a core busy.
#
# Dagster's executor of processes asks in a loop, without a pause, which step may begin. While a
# step runs, waiting for its events slows the loop down; when all steps wait, nothing does. This
# script has an op ask for a second try at once, and for one after six seconds, and compares the
# processor time of the process that leads the run.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "dagster==1.13.27"
cat > "$folder/waiting.py" <<'PYTHON'
import sys
import time

import dagster as dg

WAIT_S = 6


def a_job(name, seconds):
    @dg.op(name=f"{name}_op")
    def fetch(context: dg.OpExecutionContext):
        if context.retry_number == 0:
            raise dg.RetryRequested(max_retries=1, seconds_to_wait=seconds)

    @dg.job(name=name, executor_def=dg.multiprocess_executor)
    def made():
        fetch()

    return made


def at_once():
    return a_job("at_once", 0)


def later():
    return a_job("later", WAIT_S)


if __name__ == "__main__":
    taken = {}
    with dg.DagsterInstance.local_temp() as instance:
        for maker in (at_once, later):
            began = time.process_time()
            result = dg.execute_job(dg.reconstructable(maker), instance=instance)
            taken[maker.__name__] = time.process_time() - began
            assert result.success
            assert "STEP_RESTARTED" in {e.event_type_value for e in result.all_events}
    extra = taken["later"] - taken["at_once"]
    print(
        f"dagster {dg.__version__}: processor time of the leading process, second try at once: "
        f"{taken['at_once']:.1f} s; after a wait of {WAIT_S} s: {taken['later']:.1f} s"
    )
    if extra < 0.1 * WAIT_S:
        sys.exit("changed: waiting for a retry no longer keeps a core busy")
    print("as described: the wait itself takes processor time")
PYTHON
cd "$folder"
PYTHONPATH=$folder "$folder/venv/bin/python" waiting.py 2> log || { tail -5 log; exit 1; }
