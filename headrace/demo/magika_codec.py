"""What goes into magika's model and what comes out: its published pre- and post-processing.

The model looks at the first and the last bytes of a file and answers a score per content type. All
constants come from the configuration that ships beside the model in the `magika` package; the
package's own answer is what the demo checks against.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL = "standard_v3_3"


@dataclass(frozen=True, slots=True)
class Answer:
    """Label as magika prints it, and the model's score for it, 0..1."""

    label: str
    score: float


class MagikaCodec:
    """Turns a file's bytes into the model's input, and the model's output into a label."""

    def __init__(self) -> None:
        package = resources.files("magika")
        folder = package / "models" / MODEL
        self._config: dict[str, Any] = json.loads((folder / "config.min.json").read_text())
        self._types: dict[str, Any] = json.loads((package / "config" / "content_types_kb.min.json").read_text())
        with resources.as_file(folder / "model.onnx") as path:
            self.model_path: Path = path

    def features(self, content: bytes) -> npt.NDArray[np.int32] | None:
        """Shape [1, beg_size + end_size]; None for content too short for the model."""
        config = self._config
        padding, block = config["padding_token"], config["block_size"]
        beg, end = config["beg_size"], config["end_size"]
        row = np.full(beg + end, padding, np.int32)
        head = np.frombuffer(content[:block].lstrip()[:beg], np.uint8)
        tail = np.frombuffer(content[-block:].rstrip()[-end:], np.uint8)
        row[: len(head)] = head
        if len(tail):
            row[-len(tail) :] = tail
        smallest = config["min_file_size_for_dl"]
        if len(content) < smallest or row[smallest - 1] == padding:
            return None
        return row[None]

    def answer(self, scores: npt.NDArray[np.float32]) -> Answer:
        """The label for one row of scores, in magika's high-confidence mode."""
        config = self._config
        best = int(scores.argmax())
        score = float(scores[best])
        raw: str = config["target_labels_space"][best]
        label: str = config["overwrite_map"].get(raw, raw)
        if score < config["thresholds"].get(raw, config["medium_confidence_threshold"]):
            label = "txt" if self._types[label]["is_text"] else "unknown"
        return Answer(label, score)
