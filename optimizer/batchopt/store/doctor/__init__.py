"""What is wrong with a database, and how it is mended."""
