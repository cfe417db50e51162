"""Compiles ONNX models to TensorRT plans: `python -m headrace_runner.compile`."""
