"""Open Inference edges of the router: gRPC and REST in, `InferenceRequest` to the data plane, and back."""
