"""What the paper claims of its recipe, tried on the small world with known truth: `python -m benchmarks.claims`."""
