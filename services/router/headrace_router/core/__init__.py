"""Decisions of the router: pure, without I/O and without a clock (`now` is an argument)."""
