"""Models of other forms, made into ONNX for what works on ONNX: the optimiser and the compiler."""
