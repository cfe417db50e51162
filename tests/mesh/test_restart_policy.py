from hypothesis import given
from hypothesis import strategies as st

from headrace.mesh.restart import RestartPolicy, plan_restart

POLICY = RestartPolicy(first_delay_s=0.1, max_delay_s=5.0, stable_after_s=30.0)


def test_delays_double_up_to_the_longest() -> None:
    deaths, delays = 0, []
    for _ in range(8):
        plan = plan_restart(POLICY, deaths, ran_s=1.0)
        deaths = plan.deaths
        delays.append(plan.delay_s)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_stable_run_starts_over() -> None:
    plan = plan_restart(POLICY, 7, ran_s=30.0)
    assert (plan.delay_s, plan.deaths) == (0.1, 1)
    assert "stable" in plan.reason


@given(deaths=st.integers(0, 10**9), ran_s=st.floats(0, 1e9))
def test_no_number_of_deaths_leads_out_of_the_bounds(deaths: int, ran_s: float) -> None:
    plan = plan_restart(POLICY, deaths, ran_s)
    assert POLICY.first_delay_s <= plan.delay_s <= POLICY.max_delay_s
    assert plan.deaths >= 1
