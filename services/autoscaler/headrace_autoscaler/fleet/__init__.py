"""Instances as they stand and as they should be: observe, plan, apply."""
