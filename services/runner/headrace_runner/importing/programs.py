"""Exported programs of torch, converted to ONNX by torch's own exporter."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from headrace_common.errors import FailedPrecondition, InvalidArgument

SUFFIX = ".pt2"


def onnx_of(path: Path) -> Path:
    """The model as ONNX: the file itself, or one made of a .pt2, which is gone when this process ends.

    Names of inputs and outputs are those that the program is served with.

    Raises:
        InvalidArgument: it is no exported program, or holds what is not loaded.
        FailedPrecondition: torch cannot convert it, or is not installed.
    """
    if path.suffix != SUFFIX or path.is_dir():
        return path
    if find_spec("torch") is None:
        raise FailedPrecondition(f"{path}: needs torch, which is not installed here; pip install 'headrace[torch]'")
    return _converted(path)


def _converted(path: Path) -> Path:
    # Imported here: a model that is ONNX already is compiled from the cache in less time than these take.
    import atexit
    import shutil
    import tempfile

    from headrace.models.exporting import write_onnx
    from headrace_runner.core.pt2_archive import Refused
    from headrace_runner.engines.torch_program import open_program

    try:
        program = open_program(path)
    except Refused as error:
        raise InvalidArgument(f"{path}: {error}") from None
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror or error}") from None
    folder = Path(tempfile.mkdtemp(prefix="headrace-onnx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / f"{path.stem}.onnx"
    names = [[tensor.name for tensor in tensors] for tensors in (program.signature.inputs, program.signature.outputs)]
    write_onnx(program.exported, made, *names)
    return made
