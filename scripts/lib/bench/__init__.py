"""What scripts/bench is made of. Python's standard library and nothing else."""
