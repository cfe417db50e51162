"""A `.pt2` that would run code when it is loaded is refused, and runs none: each would leave a marker file behind."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.models import export
from headrace_runner.engines.base import ModelRefused, ModelSource
from headrace_runner.engines.torch_engine import TorchEngine
from headrace_runner.engines.torch_program import UnpicklingForbidden, nothing_is_unpickled

Change = Callable[["Archive"], None]


class Archive:
    """A `.pt2` that can be altered.

    Attributes:
        marker: what malicious content would make.
    """

    def __init__(self, path: Path, marker: Path) -> None:
        self.marker = marker
        with zipfile.ZipFile(path) as file:
            self.records = {name.partition("/")[2]: file.read(name) for name in file.namelist()}

    @property
    def bomb(self) -> bytes:
        """A pickle that makes the marker."""

        class Bomb:
            def __reduce__(self) -> tuple[Any, ...]:
                return open, (str(marker), "w")

        marker = self.marker
        return pickle.dumps(Bomb(), protocol=2)

    @property
    def python(self) -> str:
        return f"open({str(self.marker)!r},'w')"

    def program(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.records["models/model.json"])
        change(document)
        self.records["models/model.json"] = json.dumps(document).encode()

    def saved(self, content: bytes) -> bytes:
        """As torch.save writes: a zip with a pickle in it."""
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as file:
            file.writestr("model/data.pkl", content)
            file.writestr("model/version", "3")
        return made.getvalue()

    def write(self, path: Path, method: int = zipfile.ZIP_STORED) -> None:
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in self.records.items():
                file.writestr(f"model/{name}", content)


class Doubler(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((3,), 2.0))
        self.offset = torch.ones(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.offset


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    export(Doubler(), torch.ones(2, 3), path=path)
    return path


@pytest.fixture
def archive(exported: Path, tmp_path: Path) -> Iterator[Archive]:
    made = Archive(exported, tmp_path / "executed")
    yield made
    assert not made.marker.exists(), "code out of the model was executed"


def refusal(path: Path) -> str:
    with pytest.raises(ModelRefused) as caught:
        TorchEngine().load(ModelSource(path, "model.pt2"))
    text = str(caught.value)
    assert text.startswith("torch cannot load model.pt2: ")
    assert "\n" not in text
    assert str(path) not in text
    return text


def first_node(document: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = document["graph_module"]["graph"]["nodes"][0]
    return node


def node_calls(target: str, *texts: str) -> Change:
    def change(archive: Archive) -> None:
        arguments = [text.replace("MARKER", str(archive.marker)) for text in texts]
        inputs = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in arguments]
        archive.program(lambda document: first_node(document).update(target=target, inputs=inputs))

    return change


def rename_value(name: str) -> Change:
    def change(archive: Archive) -> None:
        text = archive.records["models/model.json"].decode()
        first = first_node(json.loads(text))["name"]
        made = name.replace("CODE", archive.python)
        archive.records["models/model.json"] = text.replace(json.dumps(first), json.dumps(made)).encode()

    return change


def set_size(expression: str) -> Change:
    def change(archive: Archive) -> None:
        def put(document: dict[str, Any]) -> None:
            text = expression.replace("CODE", archive.python)
            values = document["graph_module"]["graph"]["tensor_values"]["x"]
            values["sizes"][0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

        archive.program(put)

    return change


def add(name: str, content: Callable[[Archive], bytes] = lambda archive: archive.bomb) -> Change:
    def change(archive: Archive) -> None:
        archive.records[name] = content(archive)

    return change


def pickled_tensor(folder: str, config: str, key: str) -> Change:
    """torch.load with weights_only=False is what its own reader does of these."""

    def change(archive: Archive) -> None:
        document = json.loads(archive.records[f"data/{folder}/{config}"])
        entry = document["config"][key]
        entry["use_pickle"] = True
        archive.records[f"data/{folder}/{entry['path_name']}"] = archive.saved(archive.bomb)
        archive.records[f"data/{folder}/{config}"] = json.dumps(document).encode()

    return change


def custom_constant(prefix: str) -> Change:
    def change(archive: Archive) -> None:
        entry = {"path_name": f"{prefix}_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        archive.records["data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()
        archive.records[f"data/constants/{prefix}_0"] = archive.bomb

    return change


def custom_input(document: dict[str, Any]) -> None:
    value = {"arg": {"name": "obj", "class_fqn": "__torch__.torch.classes.x.Y"}, "custom_obj_name": "obj"}
    document["graph_module"]["signature"]["input_specs"].append({"custom_obj": value})


def enumeration(document: dict[str, Any]) -> None:
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": "os.Thing", "context": "null", "children_spec": []}
    signature["in_spec"] = json.dumps([1, leaf])


def keyword_argument(archive: Archive) -> None:
    """torch writes `def forward(self, KEY)` and `{'KEY':KEY}`, and runs the first: what annotates is evaluated."""
    key = f"x, y:{archive.python.replace(chr(39), chr(34))}"
    leaf = {"type": None, "context": None, "children_spec": []}
    keywords = {"type": "builtins.dict", "context": json.dumps([key]), "children_spec": [leaf]}
    none = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    tree = {"type": "builtins.tuple", "context": "null", "children_spec": [none, keywords]}

    def put(document: dict[str, Any]) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature.update(in_spec=json.dumps([1, tree]), forward_arg_names=None)

    archive.program(put)


def subgraph(name: str) -> Change:
    """`self.NAME(...)` is what becomes of a graph in the graph."""

    def put(document: dict[str, Any]) -> None:
        graph = {"inputs": [], "outputs": [], "nodes": [], "tensor_values": {}, "sym_int_values": {}}
        argument = {"as_graph": {"name": name, "graph": {**graph, "sym_bool_values": {}}}}
        first_node(document)["inputs"].append({"name": "", "arg": argument, "kind": 1})

    return lambda archive: archive.program(put)


WEIGHTS, CONSTANTS = "model_weights_config.json", "model_constants_config.json"
MALICIOUS: dict[str, tuple[Change, str]] = {
    "example inputs are a bare pickle": (
        add("data/sample_inputs/model.pt"),
        "its example inputs are not what torch writes, perhaps a bare pickle: nothing of it was loaded",
    ),
    "example inputs would import something": (
        add("data/sample_inputs/model.pt", lambda archive: archive.saved(archive.bomb)),
        "its example inputs are a pickle that would run '.*open': nothing of it was loaded",
    ),
    "a weight is a pickle": (pickled_tensor("weights", WEIGHTS, "scale"), "it keeps 'scale' as a pickle"),
    "a constant is a pickle": (pickled_tensor("constants", CONSTANTS, "offset"), "it keeps 'offset' as a pickle"),
    "a custom object": (custom_constant("custom_obj"), "it holds a pickle .data/constants/custom_obj_0.: a custom obj"),
    "an opaque object": (custom_constant("opaque_obj"), "it holds a pickle .data/constants/opaque_obj_0.: a custom"),
    "weights in the form of old": (add("data/weights/model.pt"), "it holds a pickle .data/weights/model.pt."),
    "constants in the form of old": (add("data/constants/model.pt"), "it holds a pickle .data/constants/model.pt."),
    "a custom object as input": (lambda archive: archive.program(custom_input), "it needs a custom object"),
    "native code of AOTInductor": (
        add("data/aotinductor/model/model.so", lambda _: b"\x7fELF"),
        "it holds native code .data/aotinductor/model/model.so., as AOTInductor packages do, and native .* is not run",
    ),
    "source of native code": (add("data/aotinductor/model/kernel.cpp", lambda _: b"int main;"), "it holds native code"),
    "a library among the extra files": (
        add("extra/lib.so", lambda _: b"\x7fELF"),
        "it holds native code .extra/lib.so",
    ),
    "TorchScript": (add("code/__torch__.py", lambda _: b""), "it is TorchScript, or a pickle of torch.save"),
    "a pickle of torch.save": (add("data.pkl"), "it is TorchScript, or a pickle of torch.save"),
    "files that no program needs": (
        add("executorch/x.bin", lambda _: b""),
        "it holds 'executorch/x.bin', which no exp",
    ),
    "a second program": (
        add("models/other.json", lambda _: b"{}"),
        "it holds the program 'models/other.json'; expected",
    ),
    "a call of the system": (node_calls("torch.os.system", "touch MARKER"), "it calls 'torch.os.system', which is not"),
    "a call of the builtins": (node_calls("torch._utils.__builtins__.open", "MARKER", "w"), "it calls 'torch._utils"),
    "a library to load": (node_calls("torch.ops.load_library", "MARKER"), "it calls 'torch.ops.load_library'"),
    "a file of the machine as a tensor": (
        node_calls("torch.ops.aten.from_file.default", "MARKER"),
        "it calls 'torch.ops.aten.from_file.default'",
    ),
    "a call by an operator's attributes": (
        node_calls("torch.ops.aten.__init__.__globals__", "x"),
        "it calls 'torch.ops.aten.__init__.__globals__'",
    ),
    "a method of an operator": (
        node_calls("torch.ops.aten.add.overloads"),
        "it calls 'torch._ops.overloads'|it cannot be read by torch",
    ),
    "an operator of Python that calls": (
        node_calls("_operator.methodcaller", "x"),
        "it calls '_operator.methodcaller'",
    ),
    "an operator as an argument": (
        lambda archive: archive.program(
            lambda document: first_node(document)["inputs"].append(
                {"name": "", "arg": {"as_operator": "torch.os.system"}, "kind": 1}
            )
        ),
        "it needs a custom object",
    ),
    "source in the name of a value": (rename_value("y = CODE; z"), "it names a value .y = open.*as Python source"),
    "source in a keyword of the module": (keyword_argument, "it names a value 'x, y:open.*as Python source"),
    "a value in the place of the module": (rename_value("self"), "it names a value 'self', which torch would run"),
    "a value in the place of torch": (rename_value("torch"), "it names a value 'torch', which torch would run"),
    "a method in the place of a graph": (subgraph("to_folder"), "it names a graph in its graph 'to_folder'; expected"),
    "a method of a value in the place of a graph": (subgraph("untyped_storage"), "it names a graph in its graph"),
    "indices that nobody checks": (
        node_calls("torch.ops.aten._sparse_coo_tensor_unsafe.default"),
        "it calls 'torch.ops.aten._sparse_coo_tensor_unsafe.default'",
    ),
    "checks left out by an argument": (
        node_calls("torch.ops.aten.segment_reduce.default", "sum"),
        "it calls 'torch.ops.aten.segment_reduce.default'",
    ),
    "an attribute as the name of a value": (rename_value("torch.load"), "it names a value 'torch.load'"),
    "source in a size": (set_size("CODE"), r"it has the size .*open.* which torch would run as Python source"),
    "source in a text in a size": (set_size('Max("CODE", 2)'), "it has the size 'Max"),
    "an attribute in a size": (set_size("(1).__class__"), r"it has the size .*__class__"),
    "a type of Python among the arguments": (
        lambda archive: archive.program(enumeration),
        "it takes or returns a os.Thing; expected tensors in tuples, lists and dictionaries",
    ),
    "a parameter's name with source": (
        lambda archive: archive.program(
            lambda document: document["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
                parameter_name=f'x", {archive.python}, "'
            )
        ),
        "it names a parameter 'x\", open",
    ),
}


@pytest.mark.parametrize(("change", "reason"), MALICIOUS.values(), ids=MALICIOUS.keys())
def test_what_would_run_code_is_refused_with_what_it_is_and_what_to_do(
    archive: Archive, tmp_path: Path, change: Change, reason: str
) -> None:
    change(archive)
    archive.write(tmp_path / "model.pt2")
    told = refusal(tmp_path / "model.pt2")
    assert re.search(reason, told), told
    assert "headrace.models.export(module, example_inputs" in told


def test_guards_that_are_python_source_are_left_out_and_the_program_serves(archive: Archive, tmp_path: Path) -> None:
    """torch compiles them when it makes a module of the program."""
    archive.program(lambda document: document.update(guards_code=[archive.python]))
    archive.write(tmp_path / "model.pt2")
    TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))


def test_metadata_is_left_out_whatever_is_in_it(archive: Archive, tmp_path: Path) -> None:
    text = f"x\n{archive.python}\n"
    archive.program(lambda document: first_node(document).update(metadata={"stack_trace": text, "from_node": text}))
    archive.write(tmp_path / "model.pt2")
    TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))


def test_torchs_own_reader_would_have_run_them(archive: Archive, tmp_path: Path) -> None:
    """So that the tests here are no tests of nothing."""
    marker = tmp_path / "torch"
    archive.marker = marker
    archive.records["data/sample_inputs/model.pt"] = archive.saved(archive.bomb)
    archive.write(tmp_path / "model.pt2")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it says: it was too late
        torch.export.load(tmp_path / "model.pt2")
    assert marker.exists()
    archive.marker = tmp_path / "other"


def test_what_torch_exports_itself_is_served_and_its_examples_are_not_read(tmp_path: Path) -> None:
    module = Doubler().eval()
    torch.export.save(torch.export.export(module, (torch.ones(2, 3),)), tmp_path / "model.pt2")
    model = TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))
    assert [tensor.dims for tensor in model.inputs] == [(2, 3)]


@pytest.mark.parametrize("bomb", ["C", "Python"])
def test_both_unpicklers_raise_while_a_program_is_made(archive: Archive, bomb: str) -> None:
    unpickler = pickle.Unpickler if bomb == "C" else pickle._Unpickler
    with nothing_is_unpickled(), pytest.raises(UnpicklingForbidden, match="open is forbidden here"):
        unpickler(io.BytesIO(archive.bomb)).load()
    assert pickle.loads(pickle.dumps(Path("x"))) == Path("x")


# Archives that are not what they say.


def test_compressed_members_are_refused_whatever_they_declare(archive: Archive, tmp_path: Path) -> None:
    archive.records["data/weights/weight_0"] = bytes(64 << 20)
    archive.write(tmp_path / "model.pt2", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "model.pt2").stat().st_size < 1 << 20
    assert "is compressed, and torch.export.save stores plainly" in refusal(tmp_path / "model.pt2")


def test_members_that_declare_more_than_there_is_are_refused(archive: Archive, tmp_path: Path) -> None:
    archive.write(tmp_path / "model.pt2")
    content = bytearray((tmp_path / "model.pt2").read_bytes())
    # Both sizes in the central directory's entry of a weight (APPNOTE.TXT 4.3.12).
    at = content.rindex(b"model/data/weights/weight_0") - 46
    assert content[at : at + 4] == b"PK\x01\x02"
    content[at + 20 : at + 28] = (1 << 31).to_bytes(4, "little") * 2
    (tmp_path / "model.pt2").write_bytes(content)
    assert "lies over what is before it" in (told := refusal(tmp_path / "model.pt2")) or "declares" in told


@pytest.mark.parametrize("name", ["../../escape", "/etc/escape", "data\\escape"])
def test_paths_that_lead_elsewhere_are_refused(archive: Archive, tmp_path: Path, name: str) -> None:
    archive.write(tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2", "a") as file:
        file.writestr(f"model/{name}", b"x")
    assert "a path that leads elsewhere" in refusal(tmp_path / "model.pt2")


def test_a_member_that_is_there_twice_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.write(tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2", "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("model/models/model.json", b"{}")
    assert "it holds 'models/model.json' twice" in refusal(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x80\x02}q\x00.", b"PK\x03\x04"], ids=["empty", "text", "pickle", "cut"]
)
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt2").write_bytes(content)
    assert "it is not a .pt2 archive, or a broken one" in refusal(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda a: a.records.pop("models/model.json"), "it has no models/model.json", id="no program"),
        pytest.param(
            lambda a: a.records.pop("data/weights/weight_0"), "it has no 'data/weights/weight_0'", id="no weight"
        ),
        pytest.param(
            lambda a: a.records.update({"models/model.json": b"["}), "is not the JSON that torch", id="no JSON"
        ),
        pytest.param(
            lambda a: a.records.update({"models/model.json": b"[" * 100_000}), "is not the JSON", id="too deep"
        ),
        pytest.param(lambda a: a.records.update({"models/model.json": b"{}"}), "has no graph", id="an empty program"),
        pytest.param(
            lambda a: a.records.update({"data/weights/weight_0": b"abcd"}), "describes its tensors", id="short"
        ),
        pytest.param(lambda a: a.records.update({"byteorder": b"big"}), "another order of bytes", id="big-endian"),
        pytest.param(lambda a: a.records.update({"extra/headrace.json": b"[]"}), "is not what headrace", id="names"),
        pytest.param(
            lambda a: a.records.update({"extra/headrace.json": b'{"inputs": ["a", "b"]}'}),
            "expected 1 diff",
            id="counts",
        ),
        pytest.param(
            lambda a: a.records.update({"extra/headrace.json": b'{"inputs": ["a\\u001b[2J"]}'}),
            "is not what headrace",
            id="a name that cannot be printed",
        ),
        pytest.param(
            lambda a: a.records.update({"extra/headrace.json": b'{"inputs": ["' + b"a" * 1_000_000 + b'"]}'}),
            "is not what headrace",
            id="a name without end",
        ),
        pytest.param(set_size("10**10**10"), "it has the size '10**10**10'", id="a size that nobody can work out"),
        pytest.param(
            lambda a: a.program(lambda d: [each.update(max_val="9") for each in d["range_constraints"].values()]),
            "models/model.json in it is not what torch writes",
            id="a bound that is no number",
        ),
        pytest.param(
            lambda a: a.program(lambda d: d["schema_version"].update(major=99)), "schema version", id="of the future"
        ),
    ],
)
def test_a_broken_archive_is_refused_with_what_is_missing(
    archive: Archive, tmp_path: Path, change: Change, reason: str
) -> None:
    change(archive)
    archive.write(tmp_path / "model.pt2")
    assert reason in refusal(tmp_path / "model.pt2")
