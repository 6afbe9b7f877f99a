"""The phases of a run, in their order."""

from collections.abc import Callable
from functools import partial

from backlore.tools.breaker import attacks, crowds, gates, payloads
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.held import held
from backlore.tools.breaker.judge import ANY, valid
from backlore.tools.breaker.links import links
from backlore.tools.breaker.parts import parts
from backlore.tools.breaker.pauses import pauses
from backlore.tools.breaker.repeated import repeated
from backlore.tools.breaker.stories import accounts
from backlore.tools.breaker.streams import streams
from backlore.tools.breaker.values import edges
from backlore.tools.breaker.walks import walks

Phase = tuple[str, Callable[[Breaker], None]]

FUZZ = 15  # random payloads for each route


def plan(server: int | None = None) -> list[Phase]:
    """All phases. `server` is the process whose workers' memory is measured; without one, that phase is left out."""
    found: list[Phase] = [
        ("people", attacks.populate),
        ("stages", gates.stages),
        ("another's", crowds.foreign),
        # early: large bodies leave holes in the memory that hide growth
        ("memory", partial(crowds.memory, server=server or 0)),
        ("no bounds", payloads.boundless),
        ("slow patterns", payloads.slow_patterns),
        ("accounts", accounts),
        ("walks", walks),
        ("held open", held),
        ("long", streams),
        ("links", links),
        ("header lines", repeated),
        ("forms", parts),
        ("pauses", pauses),
        ("at once", crowds.made_at_once),
        ("changes at once", crowds.changed_at_once),
        ("pages", crowds.pages),
        ("what breaks the type", payloads.payloads_that_break),
        ("parameters", gates.parameters),
        ("methods", gates.methods),
        ("files", gates.static_files),
        ("what fits the type", payloads.payloads_that_fit),
        ("chance", chance),
        ("another's, again", crowds.foreign),
    ]
    return [each for each in found if server is not None or each[0] != "memory"]


def chance(breaker: Breaker) -> None:
    """Random payloads that fit: several fields at their edges together."""
    for operation in breaker.operations:
        if operation.body is None or operation.is_form or not operation.is_own:
            continue
        person = attacks.actor(breaker, operation)
        parts = {
            name: [value for _, value in edges(part, breaker.random)]
            for name, part in operation.body.get("properties", {}).items()
        }
        for _ in range(FUZZ):
            payload = breaker.payload(operation, person)
            payload |= {name: breaker.random.choice(values) for name, values in parts.items() if values}
            attacks.send(breaker, operation, person, payload, valid(operation), "by chance")
        breaker.attack(operation, breaker.compose(operation, person), ANY, "plain", person)
