"""Studies: each script asks one question. A new question is a new script and nothing else."""
