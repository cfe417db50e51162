"""Quotas: what tenants and their models may use, lend and borrow, and what stands against a demand."""

from __future__ import annotations

from headrace_autoscaler.core.quota.amounts import Amount, Amounts, Bounds, Dimension, amounts_of, bounds_of
from headrace_autoscaler.core.quota.cohort import TenantQuota, quota_of
from headrace_autoscaler.core.quota.refusals import Binding, Limit, Reclaim, Refusal
from headrace_autoscaler.core.quota.tree import QuotaTree

__all__ = [
    "Amount",
    "Amounts",
    "Binding",
    "Bounds",
    "Dimension",
    "Limit",
    "QuotaTree",
    "Reclaim",
    "Refusal",
    "TenantQuota",
    "amounts_of",
    "bounds_of",
    "quota_of",
]
