"""Fetching from agencies: real sockets, services that answer as they document it, and faults."""
