"""The router: Open Inference in, bundles out."""
