"""Tests of the benchmarks that tell how good a map is: what they refuse, record and count."""
