#!/usr/bin/env bash
# What surprised: a step's process works on, and reports, after the process of its run was killed.
#
# Where the kernel kills the process that leads a run (for want of memory, say), one expects the
# processes of its steps to end too. Dagster's executor of processes tells them to end when it is
# asked to; killed outright it tells nobody, and they watch for nothing. This script kills the leader
# while a step is at work, waits, and looks at what the step still does and what is on record.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "dagster==1.13.27"
mkdir "$folder/home" && touch "$folder/home/dagster.yaml"
cat > "$folder/led.py" <<'PYTHON'
import sys
import time
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent


@dg.op
def works(context: dg.OpExecutionContext):
    (HERE / "began").touch()
    time.sleep(5)
    (HERE / "wrote").touch()


@dg.job(executor_def=dg.multiprocess_executor)
def led():
    works()


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(led), instance=instance)
PYTHON
cat > "$folder/look.py" <<'PYTHON'
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent


def until(name, seconds):
    deadline = time.monotonic() + seconds
    while not (HERE / name).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return (HERE / name).exists()


with (HERE / "log").open("w") as log:
    leader = subprocess.Popen([sys.executable, HERE / "led.py"], stdout=log, stderr=log)
    assert until("began", 300), (HERE / "log").read_text()[-500:]
    leader.send_signal(signal.SIGKILL)
    leader.wait()
    wrote = until("wrote", 60)
    time.sleep(10)
with dg.DagsterInstance.get() as instance:
    (run,) = instance.get_runs()
    told = [
        entry.get_dagster_event().event_type_value
        for entry in instance.all_logs(run.run_id)
        if entry.is_dagster_event
    ]
success = "STEP_SUCCESS" in told
print(
    f"dagster {dg.__version__}: after its run's process was killed, the step went on to its end: "
    f"{wrote}; it is on record as a success: {success}; the run is {run.status.value}"
)
if not (wrote and success and run.status == dg.DagsterRunStatus.STARTED):
    sys.exit("changed: a step ends with its run, or the run is known to be over")
print("as described: the step works on and reports; the run stays started")
PYTHON
cd "$folder"
PYTHONPATH=$folder DAGSTER_HOME=$folder/home "$folder/venv/bin/python" look.py
