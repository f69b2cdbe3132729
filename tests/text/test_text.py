"""Call strings and dicts: what is read, what is refused and where the error points, and that nothing is executed."""

import keyword
import math
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xpopt._settings.suggest import suggest
from xpopt._settings.text import LONGEST, Call, format_call, naming, parse, short

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and name != "id"
)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.binary(max_size=6)
)
LITERALS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(ATOMS, inner, max_size=2)
)
CALLS = st.recursive(
    st.builds(Call, NAMES, st.dictionaries(NAMES, LITERALS, max_size=4)),
    lambda inner: st.builds(Call, NAMES, st.dictionaries(NAMES, LITERALS | inner, max_size=4)),
    max_leaves=4,
)
SPACE = st.text(" \n\t\r", max_size=3)


def place(error):
    """The text that an error shows, and the column of its caret."""
    _, shown, caret = str(error).split("\n")
    assert shown[:4] == caret[:4] == "    "
    assert caret.strip() == "^"
    return shown[4:], len(caret) - 5


# What is read


@given(CALLS)
def test_what_is_written_is_read_back(call):
    text = format_call(call.name, call.keywords)
    again = parse(text)
    assert again == call
    assert list(again.keywords) == list(call.keywords)
    assert repr(again) == repr(call) == text


@given(CALLS, SPACE, SPACE)
def test_space_around_a_call_and_between_its_keywords_is_free(call, before, after):
    inside = f",{before}".join(f"{key}={after}{value!r}" for key, value in call.keywords.items())
    assert parse(f"{after}{call.name}({before}{inside}{after}){before}") == call


@given(CALLS)
def test_a_dict_says_the_same(call):
    assert parse({"id": call.name, **call.keywords}) == call
    assert parse({**call.keywords, "id": call.name}) == call
    assert parse({"hyperparameters": {"id": call.name, **call.keywords}}) == call


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("exponential", Call("exponential")),
        ("  adam ", Call("adam")),
        ("Adam()", Call("Adam")),
        ("Adam(lr=1e-3,)", Call("Adam", {"lr": 0.001})),
        (
            "A(a=-1, b=+2, c=1_000, d=None, e=True, f='x' 'y')",
            Call("A", {"a": -1, "b": 2, "c": 1000, "d": None, "e": True, "f": "xy"}),
        ),
        ("A(a=[1, (2, 3)], b={'k': {4}})", Call("A", {"a": [1, (2, 3)], "b": {"k": {4}}})),
        ("SGD(lr=0.1, s=Noam(d=512, t=B()))", Call("SGD", {"lr": 0.1, "s": Call("Noam", {"d": 512, "t": Call("B")})})),
        ("A(a=1e999)", Call("A", {"a": math.inf})),
        ("Größe(ß='é')", Call("Größe", {"ß": "é"})),
        ("A(\n  a=1,  # one\n  b=2\n)", Call("A", {"a": 1, "b": 2})),
    ],
)
def test_examples(text, call):
    assert parse(text) == call


def test_values_of_a_dict_are_passed_on_and_the_cache_with_them():
    cache, value = {"W": object()}, object()
    call = parse(MappingProxyType({"hyperparameters": {"id": "SGD", "lr": value}, "cache": cache}))
    assert (call.name, call.keywords) == ("SGD", {"lr": value})
    assert call.cache is cache
    assert parse({"hyperparameters": {"id": "SGD"}, "cache": None}).cache is None
    assert parse({"id": "SGD"}).cache is parse("SGD").cache is None


def test_a_dict_is_left_alone():
    spec = {"id": "SGD", "lr": 1}
    parse(spec).keywords["lr"] = 2
    assert spec == {"id": "SGD", "lr": 1}


# What is refused


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "the text is empty; wanted Name"),
        ("SGD(", 3, "never closed"),
        ("SGD)", 3, "unmatched"),
        ("SGD() x", 6, "syntax"),
        ("SGD(); exit()", 5, "syntax"),
        ("SGD() # fast", 5, "nothing may follow"),
        ("(SGD())", 6, "nothing may follow"),
        ("SGD(lr=1)(lr=1)", 0, "not a name"),
        ("SGD().lr", 0, "not a name"),
        ("os.system(a='x')", 0, "not a name"),
        ("1", 0, "not a name"),
        ("'SGD'", 0, "not a name"),
        ("None", 0, "not a name"),
        ("[SGD]", 0, "not a name"),
        ("lambda: 0", 0, "not a name"),
        ("SGD(0.1)", 4, "without its keyword"),
        ("SGD(lr=1, *x)", 10, "without its keyword"),
        ("SGD(x for x in y)", 3, "without its keyword"),
        ("SGD((lr:=1))", 5, "without its keyword"),
        ("SGD(lr=1, **{'a': 1})", 10, "unpack"),
        ("SGD(lr=1, a=2, lr=3)", 15, "'lr' is given twice"),
        ("SGD(a=Noam(b=1, b=2))", 16, "'b' is given twice"),
        ("SGD(lr=0.1 + 0.2)", 7, "not a literal"),
        ("SGD(lr=10**9)", 7, "not a literal"),
        ("SGD(lr=[1] * 9)", 7, "not a literal"),
        ("SGD(lr=x)", 7, "not a literal"),
        ("SGD(lr=nan)", 7, "not a literal"),
        ("SGD(lr={f()})", 7, "not a literal"),
        ("SGD(lr={**a})", 7, "not a literal"),
        ("SGD(lr={[]: 1})", 7, "not a literal"),
        ("SGD(lr=f'{x}')", 7, "not a literal"),
        ("SGD(lr=f()())", 7, "not a name"),
        ("SGD(lr=a.b())", 7, "not a name"),
        ("SGD(lr=1 if a else 2)", 7, "not a literal"),
        ("SGD(é='é', b=x)", 13, "not a literal"),
    ],
)
def test_what_is_no_call_is_refused_with_the_place(text, column, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse(text)
    assert place(caught.value) == (text, column)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_place_is_found_on_a_later_line_and_far_to_the_right():
    with pytest.raises(ValueError, match="'b' is given twice") as caught:
        parse("A(\n  é=1,\r\n  b=2,\r  b=3)")
    shown, column = place(caught.value)
    assert (shown, column) == ("A(   é=1,   b=2,   b=3)", 19)
    with pytest.raises(ValueError, match="not a literal") as caught:
        parse(f"A(a='{'x' * 500}', b=y, c='{'z' * 500}')")
    shown, column = place(caught.value)
    assert shown[column - 2 : column + 2] == "b=y,"
    assert len(shown) <= 100


@pytest.mark.parametrize("char", ["\0", "\ud800", chr(0xDFFF)])
@pytest.mark.parametrize("text", ["{}", "SGD{}", "SGD(a='{}')", "SGD(){}x"])
def test_characters_that_no_text_has_are_shown(text, char):
    text = text.format(char)
    with pytest.raises(ValueError, match="cannot be in a call") as caught:
        parse(text)
    assert place(caught.value) == (text.replace(char, "\ufffd"), text.index(char))
    str(caught.value).encode()


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + ")" * 4999,
        "A(a=" + "[" * 3000 + "]" * 3000 + ")",
        "A(a=" * 1500 + "1" + ")" * 1500,
        "-" * 9000 + "1",
        "A(a=" + "-" * 9000 + "1)",
        "A(a=" + "1+" * 4000 + "1)",
        "A(a=" + "not " * 2000 + "1)",
        "a" + ".b" * 4900,
        "a" + "()" * 4900,
        "a" + "[0]" * 3000,
        "A(a=" + "9" * 9000 + ")",
        "A" * (LONGEST + 1),
        "A(" + " " * LONGEST + ")",
    ],
    ids=lambda text: text[:6],
)
def test_deep_and_long_texts_are_refused(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1000
    assert "^" in str(caught.value)


def test_the_longest_text_is_read():
    text = f"A(a='{'x' * (LONGEST - 7)}')"
    assert len(text) == LONGEST
    assert parse(text).keywords["a"] == "x" * (LONGEST - 7)


def test_near_the_end_of_the_stack_a_call_is_read_or_refused():
    text = "A(a=" * 60 + "1" + ")" * 60
    outcomes = set()

    def dive():
        try:
            dive()
        except RecursionError:
            return
        try:
            outcomes.add(type(parse(text)))
        except ValueError as error:
            outcomes.add("nested too deeply" in str(error))
        except RecursionError:
            outcomes.add(None)  # not a frame was left to say it in

    dive()
    assert outcomes - {None} == {Call, True}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "'id' is None; wanted"),
        ({"lr": 1}, "'id' is None"),
        ({"id": 3}, "'id' is 3"),
        ({"id": "SGD", 3: 4}, "key 3 is a int"),
        ({"hyperparameters": "SGD"}, "'hyperparameters' is a str"),
        ({"hyperparameters": None}, "'hyperparameters' is a NoneType"),
        ({"hyperparameters": {"lr": 1}}, "'id' is None"),
        ({"hyperparameters": {"id": "SGD"}, "cahce": {}}, "unknown key 'cahce'"),
        ({"hyperparameters": {"id": "SGD"}, "id": "SGD"}, "unknown key 'id'"),
        ({"hyperparameters": {"id": "SGD"}, "cache": 3}, "'cache' is a int"),
    ],
)
def test_a_dict_that_is_no_call_is_refused_by_key(spec, words):
    with pytest.raises(ValueError, match=words):
        parse(spec)


PIECES = st.lists(
    st.sampled_from(
        [*"()[]{}=,.:;*+-'\"\\#@!\n\r\t\0 ", "**", "SGD", "lr", "é", "0.1", "1e9", "None", "lambda", "f'", "\ud8ff"]
    )
    | st.text(max_size=3)
).map("".join)


@given(st.text() | PIECES)
@example("'\\d'")
@example("0x1for x in y")
@example("A(a='\\N{nope}')")
@example("\ufeffSGD")
@example("\x0cSGD")
@example("A(a=1\\\n)")
def test_any_text_is_read_or_refused_with_a_value_error(text):
    try:
        call = parse(text)
    except ValueError as error:
        place(error)
    else:
        assert isinstance(call, Call)
        assert parse(repr(call)) == call


@given(st.text(" \t") | st.text("()[]{}0123456789.,=-+'\"*"))
def test_text_without_a_name_is_never_read(text):
    with pytest.raises(ValueError):
        parse(text)


@given(CALLS, PIECES.filter(lambda tail: tail.strip()))
def test_nothing_follows_a_call(call, tail):
    with pytest.raises(ValueError):
        parse(f"{call!r};{tail}")


def test_nothing_is_executed(tmp_path):
    target = tmp_path / "touched"
    for text in (
        f"open(file={str(target)!r}, mode='w')",
        f"A(a=open(file={str(target)!r}, mode='w'))",
    ):
        assert isinstance(parse(text), Call)
    for text in (
        f"A(a=open({str(target)!r}, 'w'))",
        f"A(a=[open({str(target)!r}, 'w')])",
        f"__import__('pathlib').Path({str(target)!r}).touch()",
        f"A(a=(lambda: open({str(target)!r}, 'w'))())",
    ):
        with pytest.raises(ValueError):
            parse(text)
    assert not target.exists()


# Suggestions and errors


@pytest.mark.parametrize(
    ("word", "known", "nearest"),
    [
        ("lr", ["initial_lr", "stage_length"], "'initial_lr'"),
        ("LR", ["lr", "eps"], "'lr'"),
        ("momentun", ["lr", "momentum"], "'momentum'"),
        ("decay_1", ["lr", "decay1", "decay2"], "'decay1'"),
        ("decya", ["lr", "decay1", "decay2"], "'decay1' or 'decay2'"),
        ("norm", ["lr", "clip_norm"], "'clip_norm'"),
        ("mom", ["lr", "momentum"], "'momentum'"),
        ("adma", ["SGD", "Adam"], "'Adam'"),
        ("exponentail", ["NoamScheduler", "ExponentialScheduler"], "'ExponentialScheduler'"),
        ("wholly_unlike", ["lr", "eps"], None),
        ("", ["lr", "eps"], None),
        ("x" * 10**5, ["lr", "eps"], None),
        ("l2", ["lr", "eps"], None),
        ("eta", ["lr", "eps"], None),
        ("fused", ["lr", "seed"], None),
        ("nesterov", ["lr", "master"], None),
        ("weight_decay", ["lr", "decay1", "decay2"], None),
        ("momentum_decay", ["momentum", "decay2"], None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_near_spelling_is_suggested_and_no_other(word, known, nearest):
    listing = ", ".join(known)
    question = f"; did you mean {nearest}? Known: {listing}" if nearest else f"; known: {listing}"
    assert suggest(word, known) == suggest(word, iter(known)) == question


MEANT = {"alpha": "decay or lr", "betas": "decay1 and decay2", "beta_1": "decay1", "rho": "decay"}
ABSENT = {"weight_decay": "nothing decays: add it", "rho": "there is no rho"}


@pytest.mark.parametrize(
    ("word", "known", "end"),
    [
        ("alpha", ["lr", "eps"], "; did you mean 'lr'?"),
        ("alpha", ["lr", "decay"], "; did you mean 'decay' or 'lr'?"),
        ("betas", ["decay1", "decay2"], "; did you mean 'decay1' and 'decay2'?"),
        ("betas", ["decay1"], "; known: decay1"),
        ("Beta1", ["decay1"], "; did you mean 'decay1'?"),
        ("rho", ["decay"], "; did you mean 'decay'?"),
        ("rho", ["lr"], "; there is no rho. Known: lr"),
        ("weightDecay", ["decay"], "; nothing decays: add it. Known: decay"),
        ("weigth_decay", ["decay"], "; nothing decays: add it. Known: decay"),
        ("aplha", ["lr", "eps"], "; did you mean 'lr'?"),
        ("aplha", ["eps"], "; known: eps"),
        ("bet", ["decay1"], "; known: decay1"),
        ("wei", ["decay1"], "; known: decay1"),
    ],
)
def test_a_word_of_other_libraries_is_told_by_its_meaning(word, known, end):
    """Whatever is near to it by letters."""
    assert suggest(word, known, MEANT, ABSENT) == end


def changes_to(a, b):
    """The fewest letters to add, drop, replace or swap with the next, by trying everything."""
    if not a or not b:
        return len(a) + len(b)
    ways = [changes_to(a[1:], b) + 1, changes_to(a, b[1:]) + 1, changes_to(a[1:], b[1:]) + (a[0] != b[0])]
    if a[:2] == b[1::-1] and len(b) > 1:
        ways.append(changes_to(a[2:], b[2:]) + 1)
    return min(ways)


@given(st.text("abc", min_size=4, max_size=5), st.text("abc", min_size=4, max_size=5))
def test_one_letter_of_four_may_be_wrong(word, name):
    near = changes_to(word, name) <= 1 or changes_to(word, name[: len(word)]) <= 1
    assert suggest(word, [name]).startswith("; did you mean") == near


def test_where_nothing_is_known_nothing_is_suggested():
    assert suggest("lr", []) == "; known: none"


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, [[0.5] * 1000] * 1000, dict.fromkeys(range(1000), "y" * 1000), 10**5000, range(10**9)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_long_is_shown_shortened(value):
    assert 0 < len(short(value)) <= 160


@pytest.mark.parametrize("value", ["learning_rate", 0.1, None, [1, 2], {"id": "SGD"}, -(10**20)], ids=repr)
def test_what_is_short_is_shown_as_it_is(value):
    assert short(value) == repr(value)


def test_arrays_are_shown_in_one_line():
    assert short(np.eye(2)) == "array([[1., 0.], [0., 1.]])"


@pytest.mark.parametrize("error", [TypeError("no"), ValueError("no")], ids=repr)
def test_errors_begin_with_the_place_that_is_named(error):
    with pytest.raises(type(error), match=r"^SGD: lr_scheduler: no$") as caught, naming("SGD: lr_scheduler"):
        raise error
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert str(error) == "no"


class OwnError(ValueError):
    def __init__(self, code, detail):
        super().__init__(code, detail)


@pytest.mark.parametrize("error", [OwnError(1, "no"), KeyError("no"), OSError(2, "no")], ids=repr)
def test_errors_of_other_classes_pass_with_a_note(error):
    with pytest.raises(type(error)) as caught, naming("SGD: lr_scheduler"):
        raise error
    assert caught.value is error
    assert error.__notes__ == ["in SGD: lr_scheduler"]


def test_an_error_points_at_a_keyword_of_its_call():
    outer = parse(" SGD(lr=1, s=Noam(d=1, w=2))")
    inner = outer.keywords["s"]
    assert place(outer.error("no", "lr")) == ("SGD(lr=1, s=Noam(d=1, w=2))", 4)
    assert place(outer.error("no")) == ("SGD(lr=1, s=Noam(d=1, w=2))", 0)
    assert place(inner.error("no", "w")) == ("SGD(lr=1, s=Noam(d=1, w=2))", 22)
    assert place(inner.error("no")) == ("SGD(lr=1, s=Noam(d=1, w=2))", 12)
    assert str(parse({"id": "SGD", "lr": 1}).error("no", "lr")) == "no"
