"""headrace.v1 as JSON over HTTP: the autoscaler's API for those who have no gRPC."""

from headrace_router.api.app import ApiApp, is_api_path

__all__ = ["ApiApp", "is_api_path"]
