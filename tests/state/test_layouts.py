"""A model's containers are remembered by shape alone: what comes in others is read and rebuilt as if nothing was."""

import gc
import threading
import weakref
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpopt
from xpopt._arrays.layout import Layout
from xpopt._arrays.tree import rebuild

Pair = namedtuple("Pair", "w b")


class Point(namedtuple("Point", "x y")):
    pass


class Own(dict):
    pass


class Leaf:
    """A leaf that only identity tells from others."""


def named(tree, path=()):
    """The leaves of a tree by name: the rule of the guide, once more."""
    found = {}
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        if isinstance(value, Mapping | list | tuple):
            found.update(named(value, (*path, key)))
        else:
            found[(*path, key) if path else key] = value
    return found


def same(new, tree, of):
    """Whether `new` is built like `tree`, keys and all, with ``of[leaf]`` in the place of each leaf."""
    if not isinstance(tree, Mapping | list | tuple):
        return new is of[id(tree)]
    if type(new) is not type(tree) or len(new) != len(tree):
        return False
    if isinstance(tree, Mapping):
        if any(a is not b for a, b in zip(new, tree, strict=True)):
            return False
        return all(same(a, b, of) for a, b in zip(new.values(), tree.values(), strict=True))
    return all(same(a, b, of) for a, b in zip(new, tree, strict=True))


def rebuilt(layout, tree, new):
    """Return what an update does: at once where the layout can, else by the names."""
    built = layout.build(tree, new)
    return rebuild(tree, dict(zip(layout.names, new, strict=True)).__getitem__) if built is None else built


def check(layout, tree):
    """Compare what a layout makes of a tree with the definition."""
    leaves = named(tree)
    read = layout.leaves(tree)
    if set(leaves) != set(layout.names):  # what is a container in the place of a leaf, the caller finds out
        assert read is None or any(isinstance(x, Mapping | list | tuple) for x in read)
        return
    assert [id(x) for x in read] == [id(leaves[name]) for name in layout.names]
    new = [Leaf() for _ in layout.names]
    of = {id(leaves[name]): x for name, x in zip(layout.names, new, strict=True)}
    assert same(rebuilt(layout, tree, new), tree, of)


KEYS = st.sampled_from(["a", "b", "c", 0, 1, 2])
TREES = st.recursive(
    st.builds(Leaf),
    lambda inside: st.one_of(
        st.dictionaries(KEYS, inside, max_size=3),
        st.lists(inside, max_size=3),
        st.lists(inside, max_size=3).map(tuple),
        st.builds(Pair, inside, inside),
        st.builds(Point, inside, inside),
        st.dictionaries(KEYS, inside, max_size=3).map(OrderedDict),
        st.dictionaries(KEYS, inside, max_size=3).map(lambda x: defaultdict(list, x)),
        st.dictionaries(KEYS, inside, max_size=3).map(Own),
    ),
    max_leaves=8,
).filter(lambda tree: not isinstance(tree, Leaf))


@given(TREES, st.lists(TREES, max_size=3))
def test_any_tree_after_any_other(first, others):
    layout = Layout(list(named(first)))
    for tree in (first, first, *others, first):
        check(layout, tree)


def leaf():
    return Leaf()


BASE = {"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), (leaf(), leaf())], "c": leaf()}
OTHERS = {
    "keys in another order": {"c": leaf(), "enc": {"b": leaf(), "w": leaf()}, "dec": [leaf(), (leaf(), leaf())]},
    "inner keys in another order": {"enc": {"b": leaf(), "w": leaf()}, "dec": [leaf(), (leaf(), leaf())], "c": leaf()},
    "other inner keys": {"enc": {"w": leaf(), "v": leaf()}, "dec": [leaf(), (leaf(), leaf())], "c": leaf()},
    "a tuple for a list": {"enc": {"w": leaf(), "b": leaf()}, "dec": (leaf(), (leaf(), leaf())), "c": leaf()},
    "a namedtuple for a tuple": {"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), Pair(leaf(), leaf())], "c": leaf()},
    "a subclass of dict": {"enc": Own(w=leaf(), b=leaf()), "dec": [leaf(), (leaf(), leaf())], "c": leaf()},
    "ordered": OrderedDict(enc=OrderedDict(w=leaf(), b=leaf()), dec=[leaf(), [leaf(), leaf()]], c=leaf()),
    "no dict": MappingProxyType({"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), [leaf(), leaf()]], "c": leaf()}),
    "flat, named by tuples": {name: leaf() for name in named(BASE)},
    "dicts for lists": {"enc": {"w": leaf(), "b": leaf()}, "dec": {0: leaf(), 1: {0: leaf(), 1: leaf()}}, "c": leaf()},
    "keys that are equal": {
        "enc": {"w": leaf(), "b": leaf()},
        "dec": {False: leaf(), 1.0: [leaf(), leaf()]},
        "c": leaf(),
    },
    "one leaf more": {"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), (leaf(), leaf()), leaf()], "c": leaf()},
    "one leaf less": {"enc": {"w": leaf()}, "dec": [leaf(), (leaf(), leaf())], "c": leaf()},
    "an empty container more": {"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), (leaf(), leaf()), []], "c": leaf()},
    "a leaf for a container": {"enc": leaf(), "dec": [leaf(), (leaf(), leaf())], "c": leaf()},
    "a container for a leaf": {"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), (leaf(), leaf())], "c": [leaf()]},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_what_differs_is_not_taken_for_what_is_remembered(other, turned):
    first, then = (other, BASE) if turned else (BASE, other)
    layout = Layout(list(named(first)))
    check(layout, first)
    check(layout, then)
    check(layout, first)


def test_keys_that_are_equal_stay_what_they_are():
    for first, then in (
        ({1: leaf(), 0: leaf()}, {True: leaf(), False: leaf()}),
        ({"w": leaf()}, {np.str_("w"): leaf()}),
    ):
        for wrapped in (lambda x: x, lambda x: [x], lambda x: {"a": x, "b": leaf()}):
            layout = Layout(list(named(wrapped(first))))
            check(layout, wrapped(first))
            check(layout, wrapped(then))
            check(layout, wrapped(first))


@pytest.mark.parametrize("tree", [1.0, None, "text", np.ones(3), [], {}], ids=str)
def test_what_has_no_such_leaves(tree):
    layout = Layout(list(named(BASE)))
    check(layout, BASE)
    assert layout.leaves(tree) is None
    check(layout, BASE)


def test_two_leaves_of_one_name_are_left_to_the_check_that_names_them():
    layout = Layout([("a", 0)])
    check(layout, {"a": [leaf()]})
    assert layout.leaves({"a": [leaf()], ("a", 0): leaf()}) is None


def test_what_a_container_holds_beside_its_items_is_copied():
    counted = Counter({"a": 1.0, "b": 2.0})
    made = defaultdict(list, {"a": leaf()})
    for tree in ({"x": counted}, {"x": made}):
        layout = Layout(list(named(tree)))
        for _ in range(3):
            layout.leaves(tree)
            new = rebuilt(layout, tree, [leaf() for _ in layout.names])
        assert type(new["x"]) is type(tree["x"])
    assert new["x"].default_factory is list


def test_nothing_of_a_tree_is_held():
    layout = Layout(list(named(BASE)))
    tree = {"enc": {"w": leaf(), "b": leaf()}, "dec": [leaf(), (leaf(), leaf())], "c": leaf()}
    held = [weakref.ref(x) for x in named(tree).values()]
    values = [leaf() for _ in layout.names]
    held += [weakref.ref(x) for x in values]
    for _ in range(3):
        layout.leaves(tree)
        rebuilt(layout, tree, values)
    del tree, values
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)


def test_one_shape_is_remembered_and_no_more():
    layout = Layout(list(named(BASE)))
    check(layout, BASE)

    def reached():
        seen, todo = set(), [layout]
        while todo:
            x = todo.pop()
            if id(x) not in seen and type(x).__module__ in (Layout.__module__, "builtins") and not isinstance(x, type):
                seen.add(id(x))
                todo += gc.get_referents(x)
        return len(seen)

    before = reached()
    for k in range(50):
        tree = {"enc": Own(w=leaf(), b=leaf()), "dec": [[leaf()] * (k + 1)], "c": leaf()}
        check(layout, tree) if len(named(tree)) == len(layout.names) else layout.leaves(tree)
        for other in OTHERS.values():
            layout.leaves(other)
    assert reached() == before


def test_threads_that_read_other_trees_at_once():
    layout = Layout(list(named(BASE)))
    trees = [tree for tree in OTHERS.values() if set(named(tree)) == set(layout.names)]
    errors = []

    def work(number):
        try:
            for k in range(60):
                check(layout, trees[(number + k) % len(trees)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def nested(kind, fill):
    """A model of four parameters in containers that have the same names."""
    inner = [fill(0), fill(1)]
    inner = (
        kind(*inner) if hasattr(kind, "_make") else kind(enumerate(inner)) if issubclass(kind, dict) else kind(inner)
    )
    return {"enc": inner, "dec": {1: fill(2), "b": fill(3)}}


KINDS = [list, list, tuple, dict, OrderedDict, list, tuple, tuple]


@pytest.mark.parametrize("in_place", [False, True], ids=["new", "in place"])
def test_a_model_in_changing_containers_is_trained_alike(engine, in_place):
    draw = np.random.default_rng(1)
    values = [draw.normal(size=3) for _ in range(4)]
    opt, flat = xpopt.Adam(lr=0.1), xpopt.Adam(lr=0.1)
    params = [x.copy() for x in values]
    for kind in KINDS:
        grads = [draw.normal(size=3) for _ in range(4)]
        tree = nested(kind, lambda k: params[k])  # noqa: B023
        new = opt.update_all(tree, nested(tuple, lambda k: grads[k]), out=tree if in_place else None)  # noqa: B023
        assert type(new["enc"]) is kind
        assert list(new) == ["enc", "dec"]
        assert [type(key) for key in new["dec"]] == [int, str]
        params = [
            *(new["enc"].values() if isinstance(new["enc"], dict) else new["enc"]),
            new["dec"][1],
            new["dec"]["b"],
        ]
        values = flat.update_all(values, grads)
        assert all(np.array_equal(x, y) for x, y in zip(params, values, strict=True))


@pytest.mark.parametrize("which", ["params", "grads", "out"])
@pytest.mark.parametrize("make", [lambda x: [x], lambda x: {"a": x}, lambda x: (x, x), lambda x: []], ids="abcd")
def test_a_container_in_the_place_of_a_leaf_is_told_as_at_the_first_update(engine, which, make):
    def model(special):
        return {"enc": [np.ones(3), special(np.ones(3))], "dec": {1: np.ones(3), "b": np.ones(3)}}

    def plain(x):
        return x

    def update(opt, odd):
        trees = {name: model(odd if name == which else plain) for name in ("params", "grads", "out")}
        opt.update_all(trees["params"], trees["grads"], out=trees["out"])

    fresh, trained = xpopt.Adam(), xpopt.Adam()
    for _ in range(3):
        update(trained, plain)
    before = {name: entry["mean"].copy() for name, entry in trained.cache.items()}
    with pytest.raises(ValueError) as wanted:
        update(fresh, make)
    with pytest.raises(ValueError) as told:
        update(trained, make)
    shorter = which == "params" and "a list or tuple has become shorter" in str(told.value)
    assert shorter or str(told.value) == str(wanted.value)
    assert trained.cur_step == 3
    assert all(np.array_equal(trained.cache[name]["mean"], x) for name, x in before.items())
