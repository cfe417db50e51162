"""Autoscaler and routers -> runner."""
