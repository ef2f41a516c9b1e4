"""Copies of studies between databases: exported, merged, read back."""
