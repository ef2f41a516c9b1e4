"""What is believed of configurations that were not trained: a Gaussian process over learning curves."""
