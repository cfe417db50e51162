"""What the autoscaler knows, in its own types. No protobuf, no SQL.

`api/` converts these from and to the public API, `store/` from and to rows, `control/` to what
routers and runners are told.
"""

from headrace_autoscaler.domain.instances import Enforcement, InstanceView
from headrace_autoscaler.domain.models import Model, ModelSpec
from headrace_autoscaler.domain.past import ColdStart, DecisionRecord, DeployFailure, Learnt, ModelPast
from headrace_autoscaler.domain.quantities import Limits, Resources
from headrace_autoscaler.domain.revisions import Batching, Loaded, ModelFile, Revision, RevisionState, ShapeProfile
from headrace_autoscaler.domain.sequences import SEQUENCE_IDLE_S, Sequences, SequenceSignal, StateTensor
from headrace_autoscaler.domain.tenants import Tenant
from headrace_autoscaler.domain.tensors import Signature, TensorSpec, Warmup, WarmupTensor
from headrace_autoscaler.domain.usage import Posting, Usage, UsageKey, UsageRow
from headrace_autoscaler.domain.views import FleetView, ModelView, RouterView, StandbyTarget, TrafficView

__all__ = [
    "SEQUENCE_IDLE_S",
    "Batching",
    "ColdStart",
    "DecisionRecord",
    "DeployFailure",
    "Enforcement",
    "FleetView",
    "InstanceView",
    "Learnt",
    "Limits",
    "Loaded",
    "Model",
    "ModelFile",
    "ModelPast",
    "ModelSpec",
    "ModelView",
    "Posting",
    "Resources",
    "Revision",
    "RevisionState",
    "RouterView",
    "SequenceSignal",
    "Sequences",
    "ShapeProfile",
    "Signature",
    "StandbyTarget",
    "StateTensor",
    "Tenant",
    "TensorSpec",
    "TrafficView",
    "Usage",
    "UsageKey",
    "UsageRow",
    "Warmup",
    "WarmupTensor",
]
