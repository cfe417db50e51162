"""The command that says what keeps a model from more instances, and requests out."""

from __future__ import annotations

from headrace.cli.arguments import Json, ModelName
from headrace.cli.printing import print_json
from headrace.cli.session import connect


def explain(name: ModelName, as_json: Json = False) -> None:
    """Say what keeps a model from more instances and requests out, whose limit that is, and what to type."""
    from headrace.cli.views import explanation_view

    with connect() as mesh:
        view = explanation_view(mesh.explain(name))
    if as_json:
        print_json(view)
        return
    print(view["sentence"])
    obstacles = view["obstacles"] + [each for refused in view["refused"] for each in refused["obstacles"]]
    for sentence in dict.fromkeys(obstacle["sentence"] for obstacle in obstacles):
        if sentence != view["sentence"]:
            print(f"then: {sentence}")
    for command in dict.fromkeys(obstacle["command"] for obstacle in obstacles):
        if command:
            print(f"  {command}")
