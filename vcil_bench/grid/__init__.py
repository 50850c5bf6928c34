"""Grids of runs: methods x protocols x seeds, on the GPUs of a machine or as Slurm jobs."""
