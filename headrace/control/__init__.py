"""Stubs of the control plane."""
