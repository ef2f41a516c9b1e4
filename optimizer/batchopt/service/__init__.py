"""Where a job comes in over HTTP: a study served to jobs in any framework and language."""
