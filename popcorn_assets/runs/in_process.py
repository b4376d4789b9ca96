"""Run configuration of runs that work in the process that started them."""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Keeps Dagster's own log off the terminal; the instance has it all."""

INLINE = {"resources": {"compute": {"config": {"launcher": "inline"}}}}
"""Everything in this one process, which is quicker for something small."""
