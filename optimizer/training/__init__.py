"""How one trial is trained: the only floor that knows TensorFlow, and that in the worker process alone."""
