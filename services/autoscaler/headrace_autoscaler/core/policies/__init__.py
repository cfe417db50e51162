"""Policies: how many instances a model should have. Each is pure, keeps its own memory, and has no clock."""
