"""Envoy in front of a router: its configuration, and becoming it."""

from headrace_router.envoy.launch import launch
from headrace_router.envoy.settings import Settings, admin_socket, config_path, render, settings_of

__all__ = ["Settings", "admin_socket", "config_path", "launch", "render", "settings_of"]
