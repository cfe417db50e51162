"""headrace.v1.TenantService."""

from __future__ import annotations

from headrace.v1 import tenants_pb2 as pb
from headrace.v1 import tenants_pb2_grpc
from headrace_autoscaler.api.boundary import Context, answers
from headrace_autoscaler.api.convert_specs import tenant_of_spec, tenant_pb
from headrace_autoscaler.api.convert_time import timestamp
from headrace_autoscaler.api.convert_usage import standing_pb
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.domain import Tenant
from headrace_autoscaler.ports import Fleet
from headrace_common.clock import Clock
from headrace_common.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_common.identity import OPERATOR


class TenantServicer(tenants_pb2_grpc.TenantServiceServicer):
    def __init__(self, catalogue: StoredCatalogue, fleet: Fleet, clock: Clock) -> None:
        self._catalogue = catalogue
        self._fleet = fleet
        self._clock = clock

    @answers
    async def SetTenant(self, request: pb.SetTenantRequest, context: Context) -> pb.SetTenantResponse:
        name = request.tenant.name
        if name == OPERATOR:
            raise InvalidArgument(f"tenant.name: {OPERATOR!r} is the mesh's own; choose another name")
        tenant = tenant_of_spec(request.tenant, self._catalogue.tenant(name), self._clock.wall())
        await self._catalogue.put_tenant(tenant)
        self._fleet.catalogue_changed()
        return pb.SetTenantResponse(tenant=self._shown(tenant))

    @answers
    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.GetTenantResponse:
        return pb.GetTenantResponse(tenant=self._shown(self._found(request.name)))

    @answers
    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        ordered = sorted(self._catalogue.tenants(), key=lambda tenant: tenant.name)
        return pb.ListTenantsResponse(tenants=[self._shown(tenant) for tenant in ordered])

    @answers
    async def DeleteTenant(self, request: pb.DeleteTenantRequest, context: Context) -> pb.DeleteTenantResponse:
        tenant = self._found(request.name)
        models = self._models(tenant)
        if models:
            owned = ", ".join(models[:5]) + (", ..." if len(models) > 5 else "")
            raise FailedPrecondition(f"tenant {tenant.name!r} owns {len(models)} model(s): {owned}; delete them first")
        await self._catalogue.remove_tenant(tenant.name)
        self._fleet.catalogue_changed()
        return pb.DeleteTenantResponse()

    def _shown(self, tenant: Tenant) -> pb.Tenant:
        return pb.Tenant(
            name=tenant.name,
            spec=tenant_pb(tenant),
            created_at=timestamp(tenant.created_at),
            models=self._models(tenant),
            budgets=[
                standing_pb(standing)
                for _, standings in sorted(self._fleet.standings().items())
                for standing in standings
                if standing.budget.tenant == tenant.name
            ],
        )

    def _models(self, tenant: Tenant) -> list[str]:
        return sorted(model.spec.name for model in self._catalogue.models_of(tenant.name))

    def _found(self, name: str) -> Tenant:
        tenant = self._catalogue.tenant(name)
        if tenant is None:
            raise NotFound(f"there is no tenant {name!r}")
        return tenant
