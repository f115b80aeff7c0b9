"""Benchmarks: what a whole gateway costs on this machine, measured against a peer in the same run. `python -m bench`."""
