"""Where a job comes in over HTTP, in any framework and language."""
