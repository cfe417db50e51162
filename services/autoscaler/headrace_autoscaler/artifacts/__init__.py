"""Model files by digest, below the state directory."""

from headrace_autoscaler.artifacts.incoming import FileHeader
from headrace_autoscaler.artifacts.store import Artifact, ArtifactStore

__all__ = ["Artifact", "ArtifactStore", "FileHeader"]
