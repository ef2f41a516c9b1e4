"""How a trial is trained, inside the worker: the only wing that imports TensorFlow."""
