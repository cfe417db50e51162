"""ControlService: what routers are told, and what they report."""
