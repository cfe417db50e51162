"""Whose the models are, and what is theirs."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain.quantities import NO_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    nominal: Limits = NO_LIMITS
    borrowing_limit: Limits = NO_LIMITS
    lending_limit: Limits = NO_LIMITS
    cohort: str = ""
    weight: float = 1.0
    refuse_at_budget: bool = True
    created_at: float = 0.0
