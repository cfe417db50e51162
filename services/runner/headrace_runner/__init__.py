"""The runner service: one process, one instance; holds an engine and executes whole batches."""
