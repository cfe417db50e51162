"""Everything that a client may ask besides inference; the same answers for gRPC and REST."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from headrace.oip import inference_pb2 as pb
from headrace.oip import model_config_pb2 as config_pb
from headrace_common.errors import InvalidArgument, NotFound, Unavailable, Unimplemented
from headrace_router.domain import RevisionEntry
from headrace_router.oip import describe
from headrace_router.ports import Catalogue, DataPlane


class Enquiries:
    """Answers from the catalogue and the data plane's counters. `caller` is a tenant.

    Where a model is named, all raise as `Catalogue.resolve` does.
    """

    def __init__(self, catalogue: Catalogue, plane: DataPlane) -> None:
        self._catalogue = catalogue
        self._plane = plane

    def server_ready(self) -> bool:
        return self._catalogue.ready

    def model_ready(self, caller: str, model: str, version: str) -> bool:
        """False too while its first load is under way."""
        try:
            return self._catalogue.is_ready(self._catalogue.resolve(caller, model, version))
        except Unavailable:
            return False

    def known_and_ready(self, caller: str, model: str, version: str) -> bool:
        """As `model_ready`, and False for what does not exist: over gRPC Triton answers so, and clients wait by it."""
        try:
            return self.model_ready(caller, model, version)
        except NotFound:
            return False

    def metadata(self, caller: str, model: str, version: str) -> pb.ModelMetadataResponse:
        entry = self._catalogue.resolve(caller, model, version)
        return describe.model_metadata(entry, self._catalogue.versions(caller, model))

    def config(self, caller: str, model: str, version: str) -> config_pb.ModelConfig:
        return describe.model_config(self._catalogue.resolve(caller, model, version))

    def statistics(self, caller: str, model: str, version: str) -> pb.ModelStatisticsResponse:
        """Without a version: of all versions. Without a model: of all models that the caller may call."""
        entries = self._entries(caller, model, version)
        stats = [describe.model_statistics(entry, self._plane.statistics(entry)) for entry in entries]
        return pb.ModelStatisticsResponse(model_stats=stats)

    def index(self, caller: str, only_ready: bool) -> pb.RepositoryIndexResponse:
        found = [(entry, self._catalogue.is_ready(entry)) for entry in self._catalogue.visible(caller)]
        models = [describe.model_index(entry, ready) for entry, ready in found if ready or not only_ready]
        return pb.RepositoryIndexResponse(models=models)

    def load(self, caller: str, model: str, parameters: Iterable[str]) -> None:
        """Nothing to do for a model that is deployed: its instances start by demand.

        Args:
            parameters: names of those that came.

        Raises:
            InvalidArgument: there is one. They replace a model's configuration or files.
        """
        self._catalogue.resolve(caller, model, "")
        for name in parameters:
            raise InvalidArgument(
                f"model {model!r}: loading takes no parameters, got {name!r:.100}; what a model is made of is changed "
                "with `headrace deploy`"
            )

    def unload(self, caller: str, model: str) -> NoReturn:
        """Raises Unimplemented for a model that there is."""
        self._catalogue.resolve(caller, model, "")
        raise Unimplemented(
            f"model {model!r}: unloading is not offered here; idle instances stop by themselves, and "
            f"`headrace delete` removes a model"
        )

    def _entries(self, caller: str, model: str, version: str) -> tuple[RevisionEntry, ...]:
        if not model:
            return self._catalogue.visible(caller)
        if not version:
            return self._catalogue.versions(caller, model)
        return (self._catalogue.resolve(caller, model, version),)
