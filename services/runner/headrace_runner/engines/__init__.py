"""Engines: what executes a model. `base` is the interface, `registry` names those there are."""
