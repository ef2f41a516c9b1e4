"""Where a user at a terminal comes in."""
