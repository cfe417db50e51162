"""Stubs of the runner."""
