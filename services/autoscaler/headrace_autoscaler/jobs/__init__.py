"""Optimisations of deployed models: jobs that run the optimiser as a process of its own."""
