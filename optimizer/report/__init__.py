"""What is said of a study: while it goes on, and at its end."""
