from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from headrace_common.config import MeshConfig, ProcessContext, load_context, load_mesh_config
from headrace_common.errors import InvalidArgument

DOCUMENT = Path(__file__).parents[2] / "docs/configuration.md"


def test_the_documented_example_is_the_defaults() -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example
    documented = yaml.safe_load(example[1])
    assert documented == MeshConfig().model_dump(mode="json")


def test_every_key_is_described_in_the_document() -> None:
    text = DOCUMENT.read_text()
    for section in MeshConfig.model_fields.values():
        for key, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert f"`{key}`" in text
            assert field.description in text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("router: {processes: 0}", ["router.processes", "0", "greater than or equal to 1"], id="bound"),
        pytest.param("router: {procesess: 1}", ["router.procesess", "no such key"], id="misspelt key"),
        pytest.param("telemetry: {log_level: loud}", ["telemetry.log_level", "loud"], id="not a choice"),
        pytest.param("- 1", ["[1]"], id="not a mapping"),
        pytest.param("a: [", ["cannot be read"], id="not YAML"),
    ],
)
def test_an_error_names_key_value_and_bound(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as refusal:
        load_mesh_config(path)
    assert "\n" not in refusal.value.message
    for part in [str(path), *parts]:
        assert part in refusal.value.message


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text("")
    assert load_mesh_config(path) == MeshConfig()


def test_a_context_survives_saving(tmp_path: Path) -> None:
    context = ProcessContext(process="router-0", state_dir=tmp_path, runtime_dir=tmp_path)
    context.save(tmp_path / "c.json")
    assert load_context(tmp_path / "c.json") == context
