"""Open Inference Protocol messages and service, in a descriptor pool of their own."""
