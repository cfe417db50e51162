"""The catalogue that comes with headrace, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace_autoscaler.core.allocator import CapacityClass
from headrace_autoscaler.core.rates import Rates
from headrace_autoscaler.domain import Resources
from headrace_autoscaler.shape_catalog import load_catalog
from headrace_common.errors import InvalidArgument

GIB = 1 << 30


def test_what_comes_with_headrace() -> None:
    catalog = load_catalog()
    on_demand = {shape.name: shape.price(CapacityClass.ON_DEMAND) for shape in catalog}
    assert on_demand == {
        "c5.large": 85_000,
        "c5.xlarge": 170_000,
        "c5.2xlarge": 340_000,
        "g4dn.xlarge": 526_000,
        "g4dn.2xlarge": 752_000,
        "p3.2xlarge": 3_060_000,
    }
    assert catalog.shapes is not None
    t4 = catalog.shapes["g4dn.xlarge"]
    assert (t4.capacity, t4.gpus, t4.architecture) == (Resources(4000, 16 * GIB, 1000, 16 * GIB), 1, "sm_75")
    assert catalog.shapes["p3.2xlarge"].architecture == "sm_70"
    assert catalog.rates.management_ppm == 50_000
    assert catalog.shapes["c5.large"].price(CapacityClass.SPOT) == 29_750, "a share of the on-demand price"


def test_your_own_file_goes_before_it(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        """
currency = "EUR"
[rates]
network_per_gib = "0.02"
[[shape]]
name = "c5.large"
cpu = "2"
memory = "4Gi"
on_demand = "0.1"
spot = "0.01"
[[shape]]
name = "quad"
cpu = 16
memory = "64Gi"
gpus = 4
gpu_memory = "24Gi"
gpu_architecture = "sm_86"
on_demand = "4"
[[shape]]
name = "p3.2xlarge"
available = false
"""
    )
    catalog = load_catalog(path)
    assert catalog.shapes is not None
    assert (catalog.currency, len(catalog.shapes)) == ("EUR", 6)
    assert catalog.rates == Rates(20_000, 100_000, 5_000, 50_000)
    assert dict(catalog.shapes["c5.large"].prices) == {"on_demand": 100_000, "spot": 10_000, "reserved": 62_000}
    assert catalog.shapes["quad"].capacity == Resources(16_000, 64 * GIB, 4000, 96 * GIB)


WHOLE = 'name = "x"\ncpu = "2"\nmemory = "4Gi"\non_demand = "0.1"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("a = [", ["cannot be read"], id="not TOML"),
        pytest.param("shapes = 1", ["shapes: there is no such key", "currency, classes, rates, shape"], id="key"),
        pytest.param("shape = 3", ["shape: expected tables that begin with [[shape]]; got 3"], id="not tables"),
        pytest.param("[[shape]]\ncpu = '2'", ["shape 1: name: expected text; got None"], id="no name"),
        pytest.param(f"[[shape]]\n{WHOLE}cores = 2", ["shape 1 ('x'): cores: there is no such key"], id="misspelt"),
        pytest.param(f"[[shape]]\n{WHOLE}[[shape]]\n{WHOLE}", ["shape 2 ('x')", "given twice"], id="twice"),
        pytest.param("[[shape]]\nname='x'\nmemory = '1Gi'\non_demand = '1'", ["cpu", "it is missing"], id="no cpu"),
        pytest.param("[[shape]]\nname='x'\ncpu = '1'\nmemory = '1 GB'\non_demand = '1'", ["memory", "1 GB"], id="unit"),
        pytest.param("[[shape]]\nname='x'\ncpu = '0'\nmemory = '1Gi'\non_demand = '1'", ["more than 0"], id="nothing"),
        pytest.param("[[shape]]\nname='x'\ncpu = '1'\nmemory = '1Gi'", ["on_demand", "missing"], id="no price"),
        pytest.param(f"[[shape]]\n{WHOLE}spot = 0.1", ["spot", "as text", "0.1"], id="a float is not exact"),
        pytest.param(f"[[shape]]\n{WHOLE}gpus = 1", ["gpus, gpu_memory and gpu_architecture"], id="half a GPU"),
        pytest.param(
            f"[[shape]]\n{WHOLE}gpus = 1\ngpu_memory = '8Gi'\ngpu_architecture = 'T4'", ["sm_75", "'T4'"],
            id="architecture",
        ),
        pytest.param(f"[[shape]]\n{WHOLE}available = 'no'", ["available: expected true or false"], id="not a flag"),
        pytest.param("[classes]\nspot = '1.5'", ["classes.spot", 'from "0" to "1"'], id="factor"),
        pytest.param("[rates]\nnetwork = '1'", ["rates: network: there is no such key", "network_per_gib"], id="rate"),
    ],
)  # fmt: skip
def test_an_error_names_file_entry_and_what_was_expected(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as refusal:
        load_catalog(path)
    assert "\n" not in refusal.value.message
    for part in [str(path), *parts]:
        assert part in refusal.value.message


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InvalidArgument, match=r"catalogue /nowhere\.toml: cannot be read"):
        load_catalog("/nowhere.toml")
