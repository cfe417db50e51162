"""The graph of an exported program, as the JSON that torch keeps it in: what torch may read of it, and nothing else.

torch's reader (torch/_export/serde/serialize.py) takes the JSON at its word. It looks operators up as attributes of the
torch module, evaluates sizes as Python (`pt2_expressions`), turns the names of values into Python source that it
executes, and compiles `guards_code` as it stands. So each of those is checked here before torch sees it, and what
serving does not need (guards, metadata, stack traces) is left out.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

from headrace_runner.core.pt2_archive import EXPORT, Refused
from headrace_runner.core.pt2_expressions import NotAnExpression, check_expression

Json = Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}")
_RESERVED = frozenset(
    {*keyword.kwlist, "self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "math", "_operator",
     "operator", "getattr", "slice"}
)  # fmt: skip
"""What torch's source refers to by name (torch/fx/graph.py): a value of that name would be taken for it."""
_SUBGRAPH = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,500}_[0-9]+")
"""The names that torch gives to graphs in graphs. Others would be read as methods of the module or of a value."""
_PATH = re.compile(r"(?!__)[A-Za-z0-9_-]+(\.(?!__)[A-Za-z0-9_-]+)*")
_ATEN = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)\.(?P<overload>[A-Za-z0-9_]+)"
)
_DUNDER = re.compile(r"__i?(and|or|xor|lshift|rshift)__")
_FORBIDDEN = frozenset({"from_file", "save", "_print", "warn", "segment_reduce", "_segment_reduce_backward"})
"""These read, map and write files, write to the log, or leave out at a word the checks that keep them in memory."""
_UNCHECKED = re.compile(r"_sparse_\w+_unsafe|_nested_view_from_\w+|record_stream|set_?|_foobar|_test_\w+")
"""Make tensors of indices and memory that nobody checks, or are torch's own tests. No module exports them."""
_HIGHER_ORDER = frozenset(
    {
        "associative_scan",
        "cond",
        "map_impl",
        "scan",
        "while_loop",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    }
)
_PYTHON = """
    _operator.eq _operator.ne _operator.le _operator.ge _operator.lt _operator.gt _operator.neg _operator.pos
    _operator.mul _operator.add _operator.sub _operator.floordiv _operator.mod _operator.pow _operator.truediv
    _operator.and_ _operator.or_ _operator.lshift _operator.rshift _operator.getitem math.trunc math.ceil math.floor
    torch.sym_not torch.sym_int torch.sym_float torch.sym_ite torch.sym_max torch.sym_min torch.sym_sqrt torch.sym_sum
"""
"""Functions that compute sizes from sizes."""
_SIZES = frozenset(_PYTHON.split())
_MAPPINGS = frozenset({"builtins.dict", "collections.OrderedDict"})
_TYPES = frozenset({None, "builtins.tuple", "builtins.list"}) | _MAPPINGS
_DIALECTS = frozenset({"", "ATEN", "TRAINING"})
_MOST_DEPTH = 60


def parse(content: bytes, what: str) -> dict[str, Json]:
    """Raises Refused where it is no JSON object."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise Refused(f"{what} in it is not the JSON that torch writes; {EXPORT}")
    return parsed


def checked(program: Mapping[str, Json], device: Mapping[str, Json]) -> dict[str, Json]:
    """The program as torch may read it, with all that it computes on one device.

    Args:
        program: models/model.json.
        device: as torch writes it: {"type": "cuda", "index": 0}.

    Raises:
        Refused: names what is in it that would run code, or that no module exports.
    """
    safe: dict[str, Json] = _Checker(device).walk(program, 0)
    for dialect in safe.get("verifiers") or ():
        if dialect not in _DIALECTS:
            raise Refused(
                f"it is of the dialect {str(dialect)[:40]!r}; expected what torch.export.export makes; {EXPORT}"
            )
    graph = safe.get("graph_module")
    if not isinstance(graph, dict) or not isinstance(graph.get("graph"), dict):
        raise Refused(f"models/model.json in it has no graph; {EXPORT}")
    # How the module was made up of others is nothing to who runs it as a whole.
    graph["module_call_graph"] = [each for each in graph.get("module_call_graph") or () if each.get("fqn") == ""]
    return safe


def check_operator(target: str) -> None:
    """Raises Refused where it is not an operator on tensors and sizes."""
    found = _ATEN.fullmatch(target)
    if found:
        name = found["name"]
        fine = name not in _FORBIDDEN and _UNCHECKED.fullmatch(name) is None
        fine = fine and (not name.startswith("__") or _DUNDER.fullmatch(name) is not None)
        fine = fine and not found["overload"].startswith("__")
    else:
        *prefix, name = target.split(".")
        fine = target in _SIZES or (prefix == ["torch", "ops", "higher_order"] and name in _HIGHER_ORDER)
    if not fine:
        raise Refused(
            f"it calls {target[:80]!r}, which is not among the operators that are run here (torch.ops.aten, and "
            f"arithmetic); {EXPORT}, without custom operators"
        )


class _Checker:
    """Rebuilds JSON value by value. What a key means is the same wherever it is (torch/_export/serde/schema.py)."""

    def __init__(self, device: Mapping[str, Json]) -> None:
        self._device = dict(device)
        self._rules: dict[str, Callable[[Json, int], Json]] = {
            "metadata": lambda _value, _depth: {},
            "treespec_namedtuple_fields": lambda _value, _depth: {},
            "guards_code": lambda _value, _depth: [],
            "device": self._replaced,
            "as_device": self._replaced,
            "target": _operator,
            "name": _name,
            "as_name": _name,
            "expr_str": _expression,
            "inputs": self._inputs,
            "as_graph": self._subgraph,
            "in_spec": _arguments_tree,
            "out_spec": _tree,
            "forward_arg_names": _names,
            "custom_obj_values": _custom,
            "as_custom_obj": _custom,
            "custom_obj": _custom,
            "as_operator": _custom,
            "token": _custom,
        }
        for key in ("parameter_name", "buffer_name", "tensor_constant_name", "user_input_name"):
            self._rules[key] = _path
        for key in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"):
            self._rules[key] = self._named
        self._rules["range_constraints"] = self._ranges

    def walk(self, value: Json, depth: int) -> Json:
        if depth > _MOST_DEPTH:
            raise Refused(f"models/model.json in it is nested more than {_MOST_DEPTH} deep; {EXPORT}")
        if isinstance(value, dict):
            return {key: self._entry(key, each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.walk(each, depth + 1) for each in value]
        return value

    def _entry(self, key: str, value: Json, depth: int) -> Json:
        rule = self._rules.get(key)
        return self.walk(value, depth) if rule is None else rule(value, depth)

    def _replaced(self, _value: Json, _depth: int) -> Json:
        return dict(self._device)

    def _inputs(self, values: Json, depth: int) -> Json:
        """Those of a node have names too: of an operator's arguments, which may be called self."""
        if not isinstance(values, list):
            raise Refused(f"models/model.json in it is not what torch writes; {EXPORT}")
        return [self._input(value, depth + 1) for value in values]

    def _input(self, value: Json, depth: int) -> Json:
        if not isinstance(value, dict) or "name" not in value:
            return self.walk(value, depth)
        rest = {key: each for key, each in value.items() if key != "name"}
        return {"name": _identifier(value["name"], depth), **self.walk(rest, depth)}

    def _subgraph(self, value: Json, depth: int) -> Json:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or not _SUBGRAPH.fullmatch(name):
            raise Refused(
                f"it names a graph in its graph {str(name)[:80]!r}; expected one such as 'true_graph_0'; {EXPORT}"
            )
        return self.walk(value, depth)

    def _ranges(self, values: Json, depth: int) -> Json:
        """Those of symbols; torch writes such of expressions too, which follow from them."""
        return self._named({key: each for key, each in dict(values).items() if _NAME.fullmatch(key)}, depth)

    def _named(self, values: Json, depth: int) -> Json:
        if not isinstance(values, dict):
            raise Refused(f"models/model.json in it is not what torch writes; {EXPORT}")
        return {_name(name, depth): self.walk(value, depth + 1) for name, value in values.items()}


def _operator(value: Json, _depth: int) -> Json:
    check_operator(str(value))
    return value


def _name(value: Json, depth: int) -> Json:
    if isinstance(value, str) and value in _RESERVED:
        raise Refused(f"it names a value {value!r}, which torch would run as Python source; {EXPORT}")
    return _identifier(value, depth)


def _identifier(value: Json, _depth: int) -> Json:
    if value is None or value == "" or (isinstance(value, str) and _NAME.fullmatch(value)):
        return value
    raise Refused(f"it names a value {str(value)[:80]!r}, which torch would run as Python source; {EXPORT}")


def _path(value: Json, _depth: int) -> Json:
    if isinstance(value, str) and _PATH.fullmatch(value):
        return value
    raise Refused(f"it names a parameter {str(value)[:80]!r}; expected names and dots; {EXPORT}")


def _names(values: Json, depth: int) -> Json:
    return None if values is None else [_name(value, depth) for value in values]


def _expression(value: Json, _depth: int) -> Json:
    try:
        check_expression(str(value))
    except NotAnExpression as error:
        raise Refused(f"it has the size {str(error)!r}, which torch would run as Python source; {EXPORT}") from None
    return value


def _custom(value: Json, _depth: int) -> Json:
    if value == {}:
        return value
    raise Refused(f"it needs a custom object, which only unpickling could make; {EXPORT}, with tensors alone")


def _tree(value: Json, _depth: int) -> Json:
    """How arguments and results are nested: a list of the protocol's number and the tree, as text."""
    parse_tree(value)
    return value


def _arguments_tree(value: Json, depth: int) -> Json:
    """Keywords become the parameters of a function in the source that torch makes."""
    tree = parse_tree(value)
    for part in tree.get("children_spec") or ():
        if part["type"] in _MAPPINGS:
            _names(_keys(part), depth)
    return value


def _keys(tree: Json) -> list[Json]:
    try:
        keys = json.loads(tree["context"])
    except (KeyError, ValueError, TypeError, RecursionError):
        keys = None
    if not isinstance(keys, list) or len(keys) != len(tree.get("children_spec") or ()):
        raise Refused(f"models/model.json in it nests its arguments in an unknown way; {EXPORT}")
    return keys


def parse_tree(text: Json) -> dict[str, Json]:
    """The tree of a torch.utils._pytree.TreeSpec as torch writes it. Raises Refused for other types than containers."""
    try:
        protocol, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        protocol, tree = 0, None
    if protocol != 1 or not isinstance(tree, dict):
        raise Refused(f"models/model.json in it nests its arguments in an unknown way; {EXPORT}")
    pending = [tree]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or node.get("type") not in _TYPES:
            kind = node.get("type") if isinstance(node, dict) else node
            raise Refused(
                f"it takes or returns a {str(kind)[:80]}; expected tensors in tuples, lists and dictionaries; {EXPORT}"
            )
        context = node.get("context")
        if "__enum__" in str(context):
            raise Refused(f"it has an enumeration among its arguments; {EXPORT}, with strings in its place")
        pending += node.get("children_spec") or ()
    return tree
