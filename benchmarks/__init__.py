"""Measurements of the running mesh. Read by people; nothing here asserts a time."""
