"""The demo: a real model, real files, the whole mesh on one machine (`make demo`)."""
