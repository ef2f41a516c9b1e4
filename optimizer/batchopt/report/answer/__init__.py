"""What follows from the trials: frozen records."""
