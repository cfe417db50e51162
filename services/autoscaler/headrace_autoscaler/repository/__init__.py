"""From an artifact's files to what can be deployed: single files and Triton's repository layout."""

from headrace_autoscaler.repository.layout import CONFIG_PATH, Candidate, candidates
from headrace_autoscaler.repository.model_config import (
    MAX_TEXT_BYTES,
    Settings,
    for_any_engine,
    parse_config,
    settings_of,
)
from headrace_autoscaler.repository.tensors import tensor_mismatches

__all__ = [
    "CONFIG_PATH",
    "MAX_TEXT_BYTES",
    "Candidate",
    "Settings",
    "candidates",
    "for_any_engine",
    "parse_config",
    "settings_of",
    "tensor_mismatches",
]
