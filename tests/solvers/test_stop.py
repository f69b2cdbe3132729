"""Rules that say when to stop."""

import numpy as np
import pytest

import xpopt
from xpopt import Row, stop


def info(**changes):
    history = [Row(k, 10.0 - k, 1.0, 0.1, k + 1, 10.0 - k) for k in range(4)]
    values = {"step": 3, "value": 7.0, "gradient_norm": 0.5, "rate": 0.1, "best_value": 7.0, "evaluations": 4}
    return {**values, "seconds": 2.0, "history": history, **changes}


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        (stop.steps(3), "3 steps were made"),
        (stop.steps(4), ""),
        (stop.seconds(2), "2 seconds have passed"),
        (stop.seconds(2.5), ""),
        (stop.gradient_norm(0.5), "the gradient norm 0.5 is at most 0.5"),
        (stop.gradient_norm(0.4), ""),
        (stop.value_below(7), "the value 7 is at most 7"),
        (stop.value_below(6.9), ""),
        (stop.no_progress(3, 3 / 7), "the best value has improved by 3 in 3 steps"),
        (stop.no_progress(3, 0.42), ""),
        (stop.no_progress(4, 10.0), ""),
        (stop.steps(4) | stop.seconds(1), "1 seconds have passed"),
        (stop.steps(4) & stop.seconds(1), ""),
        (stop.steps(3) & stop.seconds(1), "3 steps were made and 1 seconds have passed"),
        (stop.steps(9) | (lambda known: known["step"] == 3 and "three"), "three"),
        ((lambda known: known["step"] == 2) | stop.steps(9), ""),
        ((lambda known: True) & stop.steps(3), "<lambda> returned true and 3 steps were made"),
    ],
    ids=str,
)
def test_rules(rule, holds):
    assert rule(info()) == holds


def test_they_are_values_and_text():
    rule = stop.gradient_norm(1e-8) & stop.steps(5) | stop.no_progress(10)
    assert repr(rule) == "(gradient_norm(tol=1e-08) & steps(n=5)) | no_progress(patience=10, tol=0.0)"
    assert rule == stop.gradient_norm(1e-8) & stop.steps(5) | stop.no_progress(10)
    assert rule != stop.gradient_norm(1e-8) & stop.steps(6) | stop.no_progress(10)


def test_a_function_stops_a_solver():
    def enough(known):
        return known["value"] < 1.0

    found = xpopt.minimize(lambda x: (x @ x, 2 * x), np.array([4.0, 3.0]), "SGD(lr=0.1)", stop=enough)
    assert found.reason == "enough returned true"
    assert found.value < 1.0 <= found.history[-2].value


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (stop.steps, TypeError, r"is a class; call it, such as stop.steps\(...\)"),
        ("soon", TypeError, "stop='soon' is a str; wanted a rule of xpopt.stop, or a function"),
    ],
)
def test_what_cannot_be_is_told(rule, error, words):
    with pytest.raises(error, match=words):
        xpopt.minimize(lambda x: (x @ x, 2 * x), np.ones(2), stop=rule)
    with pytest.raises(ValueError, match="steps: n=-1 is out of range"):
        stop.steps(-1)


def test_a_rule_cannot_change_the_history():
    seen = []

    def rule(info):
        rows = info["history"]
        seen.append((len(rows), rows[-1].step, [row.step for row in rows[-2:]]))
        assert not hasattr(rows, "clear")

    xpopt.minimize(lambda x: (x @ x, 2 * x), np.ones(2), "SGD(lr=0.1)", stop=stop.steps(2) | rule)
    assert seen == [(1, 0, [0]), (2, 1, [0, 1])]
