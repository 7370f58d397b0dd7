"""Measurements, as ratios within one run where possible. `python -m bench` runs all and writes `bench/results/`."""
