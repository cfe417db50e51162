"""ONNX Runtime with inputs and outputs bound to a device's memory (IOBinding).

`InferenceSession.run` makes a device tensor for every input and frees it afterwards; here inputs of a shape keep their
place on the device. On the CPU there is nothing to gain: `run` reads numpy's memory where it is, and what it answers is
ONNX Runtime's own memory, uncopied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from headrace_runner.core.signature import EngineTensor
from headrace_runner.engines.checks import check_inputs, check_outputs

_Forms = tuple[tuple[str, tuple[int, ...], str], ...]
_MOST_FORMS = 8
"""Inputs of so many forms keep their place: batches come in few sizes, and each one costs device memory."""


class BoundSession:
    """Executes on a device. Called from one thread at a time.

    Args:
        inputs: those of the model.
        device: its kind and number, by ONNX Runtime's names.
    """

    def __init__(self, session: ort.InferenceSession, inputs: Sequence[EngineTensor], device: tuple[str, int]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = frozenset(tensor.name for tensor in session.get_outputs())
        self._kind, self._number = device
        self._places: OrderedDict[_Forms, dict[str, ort.OrtValue]] = OrderedDict()

    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[Any]], options: ort.RunOptions | None
    ) -> list[NDArray[Any]]:
        """The outputs named, in this order. Raises InputRefused, and what the binding raises."""
        # ONNX Runtime looks at bound inputs too, and says with one and the same exception whatever is wrong.
        check_inputs(self._inputs, inputs)
        check_outputs(names, self._outputs)
        # A new one each time: what is bound to it is freed with it, also where the run fails.
        binding = self._session.io_binding()
        for name, value in self._placed(inputs).items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            # Only the device is said: ONNX Runtime allocates what the shapes come to.
            binding.bind_output(name, self._kind, self._number)
        # Copies in and out are on the device's default stream, and wait for it (IOBinding::SynchronizeInputs).
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
        return [value.numpy() for value in binding.get_outputs()]

    def _placed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, ort.OrtValue]:
        """The inputs on the device: in the place of the last ones of their form, or in a new one."""
        forms = tuple((name, array.shape, array.dtype.str) for name, array in inputs.items())
        kept = self._places.get(forms)
        if kept is not None:
            self._places.move_to_end(forms)
            for name, array in inputs.items():
                kept[name].update_inplace(np.ascontiguousarray(array))
            return kept
        while len(self._places) >= _MOST_FORMS:
            self._places.popitem(last=False)
        made = {
            # Copied, because on the CPU the value would be the array itself, which may be read-only.
            name: ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C"), self._kind, self._number)
            for name, array in inputs.items()
        }
        self._places[forms] = made
        return made
