"""What a caller may see and which revision answers it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace_common import errors
from headrace_router.catalogue import LiveCatalogue


def revision(number: int, version: str, **flags: Any) -> control_pb2.Revision:
    return control_pb2.Revision(revision=number, version=version, **flags)


def catalogue(*models: control_pb2.ModelEntry) -> LiveCatalogue:
    known = LiveCatalogue()
    known.apply(control_pb2.StateUpdate(version=1, full=True, models=models))
    return known


ACME = control_pb2.ModelEntry(
    name="ocr",
    tenant="acme",
    shared_with=["friend"],
    revisions=[
        revision(1, "1"),
        revision(2, "2", current=True),
        revision(3, "1", retiring=True),
        revision(4, "10", loading=True),
    ],
)
OPEN = control_pb2.ModelEntry(name="open", tenant="default", revisions=[revision(1, "1", current=True)])
FIRST = control_pb2.ModelEntry(name="first", tenant="default", revisions=[revision(1, "1", current=True, loading=True)])


@pytest.mark.parametrize(
    ("caller", "model", "version", "answer"),
    [
        ("acme", "ocr", "", 2),
        ("acme", "ocr", "2", 2),
        ("acme", "ocr", "1", 1),
        ("friend", "ocr", "", 2),
        ("anybody", "open", "", 1),
        ("stranger", "ocr", "", errors.PermissionDenied),
        ("acme", "ocr", "3", errors.NotFound),
        ("acme", "none", "", errors.NotFound),
        ("acme", "ocr", "10", errors.Unavailable),
        ("acme", "first", "", errors.Unavailable),
    ],
    ids=[
        "no version is the current one",
        "by version",
        "a retiring revision never answers for its version",
        "shared",
        "what default owns is open",
        "not shared",
        "no such version",
        "no such model",
        "a version that is loading",
        "a first load",
    ],
)
def test_resolve(caller: str, model: str, version: str, answer: int | type[Exception]) -> None:
    known = catalogue(ACME, OPEN, FIRST)
    if isinstance(answer, int):
        assert known.resolve(caller, model, version).revision == answer
    else:
        with pytest.raises(answer):
            known.resolve(caller, model, version)


def test_versions_and_visible_models() -> None:
    known = catalogue(ACME, OPEN)
    assert [entry.version for entry in known.versions("acme", "ocr")] == ["1", "2"]
    assert [entry.model for entry in known.visible("friend")] == ["ocr", "open"]
    assert [entry.model for entry in known.visible("stranger")] == ["open"]


def test_ready_follows_the_newest_description() -> None:
    known = catalogue(OPEN)
    entry = known.resolve("t", "open", "")
    assert known.is_ready(entry)
    blocked = control_pb2.ModelEntry(
        name="open", tenant="default", revisions=[revision(1, "1", current=True, blocked_reason="no memory")]
    )
    known.apply(control_pb2.StateUpdate(version=2, models=[blocked]))
    assert not known.is_ready(entry)
    known.apply(control_pb2.StateUpdate(version=3, removed_models=["open"]))
    assert not known.is_ready(entry)


def test_a_full_state_forgets_what_it_does_not_name() -> None:
    known = catalogue(ACME, OPEN)
    known.apply(control_pb2.StateUpdate(version=1, full=True, models=[OPEN]))
    with pytest.raises(errors.NotFound):
        known.resolve("acme", "ocr", "")


def test_the_description_is_carried_over_whole() -> None:
    model = control_pb2.ModelEntry(name="m", tenant="default", revisions=[revision(1, "1", current=True)])
    model.slo.FromMilliseconds(150)
    described = model.revisions[0]
    described.max_batch_size = 32
    described.signature.batchable = True
    described.signature.inputs.add(name="x", datatype="BYTES", shape=[-1, 3], optional=True)
    described.batching.max_queue_delay_us = 500
    described.batching.priority_levels = 3
    entry = catalogue(model).resolve("t", "m", "")
    assert (entry.slo_s, entry.max_batch_size, entry.batchable) == (0.15, 32, True)
    assert (entry.inputs[0].name, entry.inputs[0].shape, entry.inputs[0].optional) == ("x", (-1, 3), True)
    assert (entry.batching.max_queue_delay_s, entry.batching.priority_levels) == (0.0005, 3)
