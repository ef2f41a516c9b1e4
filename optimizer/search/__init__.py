"""What to try next: arrays in, arrays out; no TensorFlow, no database."""
