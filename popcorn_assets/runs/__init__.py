"""What Dagster needs of us to execute: the instance, processes and clusters that do a step's work,
pools and retries, and runs that lost their process.

Nothing here knows what an asset makes.
"""
