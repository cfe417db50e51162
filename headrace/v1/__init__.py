"""Stubs of the public API: models, tenants, usage, the mesh."""
