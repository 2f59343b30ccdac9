"""Random programs, and random replays of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.e2e.oracle.programs import FLOW_INPUTS, Description, Statement
from tests.e2e.oracle.steps import INPUT_NAMES

CONSTANTS = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["", "a", "text"]))


class _Scope:
    """What a program has made so far."""

    def __init__(self, *, is_flow: bool, is_async: bool = False) -> None:
        self.is_flow = is_flow
        self.is_async = is_async
        self.labels = 0
        self.variables: list[str] = []
        self.calls: list[str] = []
        self.pairs: list[str] = []
        self.lists: list[str] = []
        self.futures: list[tuple[str, str]] = []
        self.mapped: list[str] = []

    def label(self) -> str:
        self.labels += 1
        return f"s{self.labels}"


def _leaf(draw: st.DrawFn, scope: _Scope) -> Any:
    choices = ["constant", "input"]
    choices += ["variable"] * 5 if scope.variables else []
    choices += ["item"] * 2 if scope.pairs else []
    match draw(st.sampled_from(choices)):
        case "constant":
            return ["constant", draw(CONSTANTS)]
        case "input":
            return ["input", draw(st.sampled_from(FLOW_INPUTS))]
        case "variable":
            # The latest are the likeliest, so that chains get long.
            back = draw(st.integers(0, min(5, len(scope.variables) - 1)))
            return ["variable", scope.variables[-1 - back]]
        case _:
            return ["item", draw(st.sampled_from(scope.pairs)), draw(st.integers(0, 1))]


def _expression(draw: st.DrawFn, scope: _Scope, depth: int = 2) -> Any:
    if depth == 0 or draw(st.integers(0, 2)) > 0:
        return _leaf(draw, scope)
    parts = [_expression(draw, scope, depth - 1) for _ in range(draw(st.integers(1, 3)))]
    match draw(st.sampled_from(["list", "tuple", "dict"])):
        case "dict":
            return ["dict", {f"k{len(parts) - index}": part for index, part in enumerate(parts)}]
        case kind:
            return [kind, parts]


def _made(draw: st.DrawFn, scope: _Scope, do: str) -> Statement:
    plain_call = do == "call" and scope.is_flow and not scope.is_async
    possible = [one for one in INPUT_NAMES if one != "later" or not plain_call]
    name = draw(st.sampled_from([*possible, "mix", "gather", "fragile", *(["later"] * 3 if scope.is_async else [])]))
    inputs = {one: _expression(draw, scope) for one in INPUT_NAMES[name]}
    if name == "mix" and draw(st.booleans()):
        del inputs["second"]
    after = draw(st.lists(st.sampled_from(scope.calls), max_size=2, unique=True)) if scope.calls else []
    return {
        "do": do,
        "step": name,
        "label": scope.label(),
        "inputs": inputs,
        "after": after if draw(st.integers(0, 3)) == 0 else [],
        "own_id": draw(st.integers(0, 5)) == 0,
    }


def _bound(draw: st.DrawFn, scope: _Scope, statement: Statement, name: str) -> Statement:
    into = f"v{scope.label()}"
    caught = scope.is_flow and draw(st.integers(0, 3)) > 0
    scope.calls.append(into)
    if name == "split":
        scope.pairs.append(into)
    if name != "split" or scope.is_flow:
        scope.variables.append(into)
    if name == "collect":
        scope.lists.append(into)
    if caught and name == "fragile":
        scope.variables.append(f"{into} error")
    return {**statement, "into": into, "catch": caught}


def _call(draw: st.DrawFn, scope: _Scope) -> Statement:
    made = _made(draw, scope, "call")
    return _bound(draw, scope, made, made["step"])


def _submit(draw: st.DrawFn, scope: _Scope) -> Statement:
    made = _made(draw, scope, "submit")
    scope.futures.append((made["label"], made["step"]))
    return made


def _take(draw: st.DrawFn, scope: _Scope) -> Statement:
    future, name = draw(st.sampled_from(scope.futures))
    return _bound(draw, scope, {"do": "take", "future": future}, name)


def _map(draw: st.DrawFn, scope: _Scope) -> Statement:
    label = scope.label()
    scope.mapped.append(label)
    over = [_expression(draw, scope, 1) for _ in range(draw(st.integers(1, 3)))]
    return {"do": "map", "step": draw(st.sampled_from(["mix", "gather", "count"])), "label": label, "over": over}


def _collect(draw: st.DrawFn, scope: _Scope) -> Statement:
    into = f"v{scope.label()}"
    scope.variables.append(into)
    mapped = draw(st.sampled_from(scope.mapped))
    return {"do": "collect", "mapped": mapped, "into": into, "as_completed": draw(st.booleans())}


def _wait(draw: st.DrawFn, scope: _Scope) -> Statement:
    into = f"v{scope.label()}"
    scope.variables.append(into)
    return {"do": "wait", "name": draw(st.sampled_from(["ask", "go"])), "into": into}


def _together(draw: st.DrawFn, scope: _Scope) -> Statement:
    # What they take was there before: none takes what another of them returns.
    before = _Scope(is_flow=scope.is_flow, is_async=scope.is_async)
    before.labels, before.variables, before.calls = scope.labels, list(scope.variables), list(scope.calls)
    calls = []
    for _ in range(draw(st.integers(2, 3))):
        made = _made(draw, before, "together")
        into = f"v{before.label()}"
        calls.append({**made, "into": into})
        scope.variables.append(into)
    scope.labels = before.labels
    return {"do": "together", "calls": calls}


def _compute(draw: st.DrawFn, scope: _Scope) -> Statement:
    of = _expression(draw, scope)
    into = f"v{scope.label()}"
    scope.variables.append(into)
    return {"do": "compute", "into": into, "of": of}


def _block(draw: st.DrawFn, scope: _Scope, depth: int, most: int) -> list[Statement]:
    body: list[Statement] = []
    for _ in range(draw(st.integers(1, most))):
        choices = ["call"] * 6 + ["submit"]
        if scope.is_flow:
            choices += ["compute"] * 2 + ["submit", "map"] + ["repeat", "branch"] * (depth > 0)
            choices += ["fail"] if draw(st.integers(0, 5)) == 0 else []
            choices += ["collect"] * 2 if scope.mapped else []
            choices += ["append"] if scope.lists else []
            choices += ["together"] * (2 if scope.is_async else 1)
            choices += ["wait"] if draw(st.integers(0, 2)) == 0 else []
        choices += ["take"] * 3 if scope.futures else []
        match draw(st.sampled_from(choices)):
            case "call":
                body.append(_call(draw, scope))
            case "submit":
                body.append(_submit(draw, scope))
            case "take":
                body.append(_take(draw, scope))
            case "map":
                body.append(_map(draw, scope))
            case "collect":
                body.append(_collect(draw, scope))
            case "compute":
                body.append(_compute(draw, scope))
            case "wait":
                body.append(_wait(draw, scope))
            case "together":
                body.append(_together(draw, scope))
            case "append":
                to = draw(st.sampled_from(scope.lists))
                body.append({"do": "append", "to": to, "of": _leaf(draw, scope)})
            case "repeat":
                of = _expression(draw, scope)
                body.append({"do": "repeat", "of": of, "body": _block(draw, scope, depth - 1, 3)})
            case "branch":
                of = _expression(draw, scope)
                first, second = (_block(draw, scope, depth - 1, 3) for _ in range(2))
                body.append({"do": "branch", "of": of, "body": first, "otherwise": second})
            case _:
                body.append({"do": "fail", "of": _expression(draw, scope)})
    return body


@st.composite
def flows(draw: st.DrawFn) -> Description:
    """Bodies, some of them async, with calls one by one and side by side, waits, plain Python, loops and failures."""
    scope = _Scope(is_flow=True, is_async=draw(st.integers(0, 2)) == 0)
    body = _block(draw, scope, 2, 8)
    returns = ["list", [["variable", one] for one in scope.variables]]
    return {"body": body, "returns": returns, "async": scope.is_async}


@st.composite
def pipelines(draw: st.DrawFn) -> Description:
    """Graphs: calls and what they take, nested, and what they come after."""
    scope = _Scope(is_flow=False)
    body = _block(draw, scope, 0, 9)
    parts = [["variable", one] for one in scope.variables] + [["item", one, 1] for one in scope.pairs]
    return {"body": body, "returns": ["list", parts] if parts else ["constant", None]}


def value_for(draw: st.DrawFn, name: str) -> Any:
    """Draw a value that a step of this name could return."""
    match name:
        case "count":
            return draw(st.integers(0, 5))
        case "flag":
            return draw(st.booleans())
        case "collect":
            return draw(st.lists(st.sampled_from(["p", "q", "r"]), max_size=2))
        case _:
            return draw(st.sampled_from(["", "other", "another"]))
