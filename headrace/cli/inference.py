"""The command `infer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import flags
from headrace.cli.printing import print_json
from headrace.cli.problems import UsageProblem, found_here
from headrace.cli.session import connect
from headrace.errors import InvalidArgument

if TYPE_CHECKING:
    from headrace.client.tensors import Array


def infer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.", show_default=False)],
    inputs: Annotated[
        list[str],
        typer.Option(
            "-i",
            "--input",
            metavar="TENSOR=VALUE",
            help="An input: @file.npy, @file.json or JSON such as '[[1, 2]]'; repeatable.",
            show_default=False,
        ),
    ],
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Deadline, such as 2s. Default: 30s.")] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="json|npz=FILE", help="Form of the answer.")
    ] = "json",
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Who calls.")] = "",
    version: Annotated[str, typer.Option(metavar="VERSION", help="Version; the current one if not given.")] = "",
    sequence: Annotated[str, typer.Option(metavar="ID", help="Of a stateful model: which sequence this is of.")] = "",
    start: Annotated[bool, typer.Option("--start", help="It is the sequence's first request.")] = False,
    end: Annotated[bool, typer.Option("--end", help="It is the sequence's last request.")] = False,
) -> None:
    """Send one request to a model. Values are converted to the datatypes that the model wants."""
    from headrace.cli.tensor_inputs import conform, read_inputs

    with found_here():
        npz = _npz_path(output)
        timeout_s = flags.deadline(timeout, "--timeout")
        values = read_inputs(inputs)
    with connect(tenant) as mesh:
        metadata = mesh.metadata(name, version)
        with found_here():
            tensors = conform(values, metadata)
        outputs = mesh.infer(
            name,
            tensors,
            version,
            timeout_s=timeout_s,
            sequence_id=int(sequence) if sequence.isdecimal() else sequence,
            sequence_start=start,
            sequence_end=end,
        )
    if npz is not None:
        _save(npz, outputs)
    else:
        print_json({"outputs": {key: _plain(key, array) for key, array in outputs.items()}}, indent=None)


def _npz_path(output: str) -> Path | None:
    form, _, path = output.partition("=")
    if form == "npz" and path:
        return Path(path)
    if output != "json":
        raise InvalidArgument(f"-o: expected json or npz=FILE; got {output!r}")
    return None


def _save(path: Path, outputs: dict[str, Array]) -> None:
    import numpy as np

    # Not as objects: those would be pickled, and nobody should have to unpickle an answer.
    arrays = {name: _fixed_width(name, array) if array.dtype == object else array for name, array in outputs.items()}
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # names become keys
    except OSError as error:
        raise UsageProblem(f"-o: {path} cannot be written: {error.strerror}") from None


def _fixed_width(name: str, array: Array) -> Array:
    import numpy as np

    if any(element.endswith(b"\0") for element in array.flat):
        raise UsageProblem(f"output {name!r} holds bytes that end in zero, which .npz cannot; use the Python client")
    return np.array(array.tolist(), dtype=np.bytes_).reshape(array.shape)


def _plain(name: str, array: Array) -> Any:
    """JSON form. Numbers that JSON lacks are written as protobuf's JSON does: "NaN", "Infinity"."""
    if array.dtype == object:
        return _texts(name, array.tolist())
    values = array.tolist()
    return _named_numbers(values) if array.dtype.kind == "f" else values


def _texts(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(name, item) for item in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UsageProblem(f"output {name!r} holds bytes that are no UTF-8 text; use -o npz=FILE") from None


def _named_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_named_numbers(item) for item in value]
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value
