"""What a machine is, holds and costs: no TensorFlow, no database."""
