"""Unary ModelInfer from Envoy's worker thread to the plane and back, without a task or an ASGI call each."""
