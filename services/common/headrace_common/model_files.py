"""Files that look like models and are not served."""

from __future__ import annotations

PICKLED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
PICKLED_REASON = (
    "a pickle, or TorchScript: loading one runs whatever code is in it, so that the mesh never does; export the module "
    "with headrace.models.export(module, example_inputs, path='model.pt2'), or to ONNX"
)
