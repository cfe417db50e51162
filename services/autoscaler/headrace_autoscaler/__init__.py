"""The autoscaler: catalogue, tenants, fleet, books."""
