"""What one request may cost on the hot route, in operations.

Each figure is what was measured with Python 3.11, plus about a tenth where it is not a handful. Where a change
makes the route cheaper, lower its figure, or the gain is lost again unseen. Where a change must make it
dearer, raise the figure in the same commit and say in its message what users get for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.micro.counting import Operations


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one request (or one bundle, where the name says so) may take.

    Attributes:
        calls: of functions in our own code; a coroutine that is resumed is called again.
        builtins: of functions in C that our code calls.
        bytecodes: that our code executes; 0: not counted, where it would slow the count down too much.
    """

    calls: float
    builtins: float
    bytecodes: float = 0


BUDGETS = {
    "request by the filter": Budget(37, 26),
    "request by ASGI": Budget(70, 60),
    "header split": Budget(5, 3, 276),
    "response encoded": Budget(1, 6, 73),
    "bundle of 64 encoded": Budget(11, 18, 2120),
    "bundle of 64 split": Budget(76, 215, 5090),
}
TASKS_PER_REQUEST = 0
"""Made by our code; the server makes one per request before it calls us."""
RETAINED_BYTES_PER_REQUEST = 8.0
"""Live after a request that were not before, over many. A leak of the smallest object is 16."""
COPIES_OF_A_LARGE_TENSOR = 4.0
"""Live at once, of 602 KB, beside the request's own body; the stand-in's received message is one of them."""


def over(name: str, measured: Operations) -> str:
    """Why `measured` is over the budget of that name, and what to do; "" where it is not."""
    budget = BUDGETS[name]
    checked = (
        ("calls", measured.calls, budget.calls),
        ("builtins", measured.builtins, budget.builtins),
        ("bytecodes", measured.bytecodes, budget.bytecodes),
    )
    broken = [f"{kind} {found:.1f}, budget {most:g}" for kind, found, most in checked if most and found > most]
    if not broken:
        return ""
    dearest = "\n".join(f"  {count:8.2f}  {function}" for function, count in measured.by_function[:15])
    return (
        f"{name}: {'; '.join(broken)}.\nThe hot route has become dearer. Make it cheaper again, or raise the figure in "
        f"benchmarks/micro/budgets.py in this commit and say in its message why.\n"
        f"Calls per request, by function:\n{dearest}"
    )
