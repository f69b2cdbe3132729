"""Files that are damaged, or made to do harm: one clear error, nothing loaded, no memory beyond the file's size."""

import hashlib
import json
import random
import sys
import tracemalloc
from contextlib import nullcontext

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from _kit.states import KING

import xpopt
from xpopt import Adam, CheckpointError
from xpopt._checkpoint import checking, structure
from xpopt._state import names as names_module

pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
import safetensors.numpy as tensors

ROUNDS = 3_000
LARGEST = int(sys.float_info.max)


@pytest.fixture
def opt():
    """An optimizer with some of everything."""
    opt, x = Adam(lr_scheduler=KING), np.arange(3.0)
    for step in range(3):
        for name in ("W", ("enc", b"\x00", None), 7):
            opt.update(x, x, name, float(step))
        opt.step()
    opt.update(np.ones((), np.float32), np.ones((), np.float32), "b", 3.0)
    return opt


@pytest.fixture
def victim():
    """An optimizer that must stay as it is."""
    victim = Adam(lr=0.5, lr_scheduler=KING)
    victim.update(np.ones(2), np.ones(2), "mine", 1.0)
    return victim


def look(opt):
    """Everything that `opt` holds."""
    state = opt.state_dict()
    return state["header"], {key: x.tobytes() for key, x in state["arrays"].items()}


def refuses(victim, path, message=None):
    """Whether a file is refused as it should be, and nothing is loaded."""
    before = look(victim)
    for work in (victim.load, xpopt.load_optimizer):
        with pytest.raises(CheckpointError, match=message) as error:
            work(path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value) or "things are wrong" in str(error.value)
    assert look(victim) == before


def sign(header, arrays, path):
    """Write a file as an attacker would who knows the format: the checksum is right."""
    text = header if isinstance(header, str) else json.dumps(header)
    checksum = hashlib.sha256(text.encode())
    for key in sorted(arrays):
        checksum.update(arrays[key].tobytes())
    path.unlink(missing_ok=True)
    tensors.save_file(arrays, path, metadata={"xpopt": text, "sha256": checksum.hexdigest()})


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def put(path, content):
    """Write a file anew: to truncate and rewrite one makes some file systems wait for the disk, thousands of times."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def damaged(content, rng):
    """The same bytes with an accident."""
    at, other = rng.randrange(len(content)), rng.randrange(len(content))
    low, high = sorted((at, other))
    return rng.choice(
        [
            lambda: content[:at],
            lambda: content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
            lambda: content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:],
            lambda: content[:at] + content[at + rng.randrange(1, 9) :],
            lambda: content[:low] + content[high:] + content[low:high],
            lambda: content[:low] + bytes(high - low) + content[high:],
            lambda: rng.randrange(2**64).to_bytes(8, "little") + content[8:],
            lambda: (
                (int.from_bytes(content[:8], "little") + rng.randrange(-16, 17)).to_bytes(8, "little") + content[8:]
            ),
            lambda: content + rng.randbytes(rng.randrange(1, 9)),
            lambda: content[:low] + content[low:high] + content[low:],
        ]
    )()


def test_thousands_of_accidents(opt, victim, tmp_path):
    opt.save(tmp_path / "good")
    content, path, rng = (tmp_path / "good").read_bytes(), tmp_path / "bad", random.Random(20170814)
    before, refused = look(victim), 0
    for _ in range(ROUNDS):
        bad = damaged(content, rng)
        if bad == content:
            continue
        put(path, bad)
        with pytest.raises(CheckpointError):
            victim.load(path)
        refused += 1
    assert look(victim) == before
    assert refused > 0.98 * ROUNDS


def test_every_bit_and_every_length_counts(opt, victim, tmp_path):
    opt = Adam()
    opt.update(np.ones((), np.float32), np.ones((), np.float32), "\x1b")
    opt.save(tmp_path / "good")
    content, path = (tmp_path / "good").read_bytes(), tmp_path / "bad"
    before = look(victim)
    for i in range(len(content)):
        for bad in (
            content[:i],
            *(content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :] for bit in range(8)),
        ):
            put(path, bad)
            with pytest.raises(CheckpointError):
                victim.load(path)
    assert look(victim) == before


WRONG = [None, True, -1, 0.5, float("nan"), float("inf"), 1e999, 10**4000, 2**63, "", "x", "W", [], [[]], {}, {"a": []}]


def places(value, path=()):
    """Every place in a header, as the keys that lead there."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def forged(header, rng):
    """The same header with something else somewhere."""
    header = json.loads(json.dumps(header))
    *path, last = rng.choice(list(places(header))[1:])
    inside = header
    for key in path:
        inside = inside[key]
    action = rng.randrange(4)
    if action == 0:
        del inside[last]
    elif action == 1 and isinstance(inside, list):
        inside.append(inside[last])
    elif action == 2 and isinstance(inside, dict):
        inside[rng.choice(["id", "t", "__class__", "lr", "slots"])] = inside[last]
    else:
        inside[last] = rng.choice(WRONG)
    return header


def test_forgeries_with_a_right_checksum(opt, victim, tmp_path):
    """Either refused, or it is what it says: a header that could have been saved."""
    state, rng, path = opt.state_dict(), random.Random(7), tmp_path / "bad"
    before, refused = look(victim), 0
    for _ in range(ROUNDS // 5):
        header = forged(state["header"], rng)
        sign(header, state["arrays"], path)
        try:
            loaded = xpopt.load_optimizer(path)
        except CheckpointError:
            refused += 1
            with pytest.raises(CheckpointError):
                victim.load(path)
        else:
            header["groups"][0]["settings"]["lr"] = header["schedule"]["hyperparameters"][
                "initial_lr"
            ]  # which wins over it
            header["xpopt_version"] = xpopt.__version__
            assert loaded.state_dict()["header"] == header
            loaded.update(np.ones(2), np.ones(2), "new", 1.0)
    assert look(victim) == before
    assert refused > 0.7 * ROUNDS // 5


BLOCK = {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]}
HUGE = 2**62


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        bytes(8),
        bytes(100),
        (2**63).to_bytes(8, "little"),
        (10**8).to_bytes(8, "little") + b"{}",
        raw({}),
        raw(b"[]"),
        raw(b"null"),
        raw(b"{"),
        raw(b"[" * 100_000),
        raw(b'{"a":' * 100_000),
        raw(b'{"__metadata__":{"xpopt":3}}'),
        raw(b'{"__metadata__":{"xpopt":"{}"}}'),
        raw({"__metadata__": {"xpopt": "[" * 100_000}}),
        raw({"__metadata__": {"xpopt": '{"a":' * 100_000}}),
        raw({"__metadata__": {"xpopt": "9" * 100_000}}),
        raw({"__metadata__": {"xpopt": '{"format_version": 1}'}}),
        raw({"__metadata__": {"xpopt": '{"format_version": 1}', "sha256": "", "more": ""}}),
        raw({"W/mean": {**BLOCK, "shape": [0, HUGE, HUGE], "data_offsets": [0, 0]}}),
        raw({"W/mean": {**BLOCK, "shape": [HUGE, HUGE]}}, bytes(24)),
        raw({"W/mean": {**BLOCK, "shape": [-3]}}, bytes(24)),
        raw({"W/mean": {**BLOCK, "data_offsets": [0, HUGE]}}, bytes(24)),
        raw({"W/mean": {**BLOCK, "data_offsets": [24, 0]}}, bytes(24)),
        raw({"W/mean": {**BLOCK, "dtype": "O"}}, bytes(24)),
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",  # a pickle
    ],
    ids=lambda content: repr(content[:40]),
)
def test_files_that_are_none(content, victim, tmp_path):
    (tmp_path / "bad").write_bytes(content)
    refuses(victim, tmp_path / "bad")


@pytest.mark.parametrize(
    "entry",
    [
        {**BLOCK, "shape": [0, 2**63], "data_offsets": [0, 0]},
        {**BLOCK, "shape": [0, HUGE, HUGE], "data_offsets": [0, 0]},
        {**BLOCK, "shape": [1] * 100, "data_offsets": [0, 8]},
        {**BLOCK, "dtype": "F16", "shape": [12]},
        {**BLOCK, "dtype": "BF16", "shape": [12]},
        {**BLOCK, "dtype": "F8_E5M2", "shape": [24]},
        {**BLOCK, "dtype": "BOOL", "shape": [24]},
        {**BLOCK, "dtype": "I64"},
    ],
    ids=str,
)
def test_arrays_that_are_no_slots(entry, victim, tmp_path):
    header = victim.state_dict()["header"]
    size = entry["data_offsets"][1]
    checksum = hashlib.sha256(json.dumps(header).encode() + bytes(size)).hexdigest()
    metadata = {"xpopt": json.dumps(header), "sha256": checksum}
    (tmp_path / "bad").write_bytes(raw({"__metadata__": metadata, "mine/mean": entry}, bytes(size)))
    refuses(victim, tmp_path / "bad")


def test_a_key_that_is_there_twice(opt, victim, tmp_path):
    """In the header and in what is around it, even if both say the same."""
    state = opt.state_dict()
    text = json.dumps(state["header"])
    sign('{"cur_step": 3, ' + text[1:], state["arrays"], tmp_path / "bad")
    refuses(victim, tmp_path / "bad", "repeated")
    opt.save(tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    length = int.from_bytes(content[:8], "little")
    outer = content[8 : 8 + length].rstrip()
    key = json.loads(outer)
    again = b', "W/mean": ' + json.dumps(key["W/mean"]).encode() + b"}"
    (tmp_path / "bad").write_bytes(raw(outer[:-1] + again, content[8 + length :]))
    refuses(victim, tmp_path / "bad", "repeated")


SETTINGS = "groups", 0, "settings"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format_version",), 2, "format version 2, and this xpopt reads 1; update xpopt"),
        (("format_version",), 10**4000, "format"),
        (("format_version",), 0, "format_version 0; wanted 1"),
        (("format_version",), True, "format_version True"),
        (("rule", "name"), "SchedulerBase", "SchedulerBase"),
        (("rule", "name"), "OptimizerBase", "OptimizerBase"),
        (("rule", "name"), "os.system", "os.system"),
        (("rule", "version"), 2, "version 2, and this is 1"),
        ((*SETTINGS, "lr"), float("nan"), "lr=nan is out of range"),
        ((*SETTINGS, "lr"), -1.0, "lr=-1.0 is out of range"),
        ((*SETTINGS, "lr"), "0.1", "lr='0.1' is a str"),
        ((*SETTINGS, "lr"), None, "lr=None"),
        ((*SETTINGS, "decay1"), True, "decay1=True is a bool"),
        ((*SETTINGS, "self"), 1.0, "no hyperparameter 'self'"),
        (("schedule", "name"), "Adam", "unknown scheduler 'Adam'"),
        (("schedule", "name"), "king", "unknown scheduler 'king'"),
        (("schedule", "hyperparameters", "patience"), 1, "patience=1 is out of range"),
        (("schedule", "hyperparameters", "id"), "noam", "the schedule 'KingScheduler': "),
        (("schedule", "state", "rate"), float("inf"), "rate=inf is out of range"),
        (("schedule", "state", "losses"), [1.0] * 100, "state has 100 losses"),
        (("schedule", "state", "losses"), 3, "the schedule 'KingScheduler': "),
        (("cur_step",), -1, "cur_step is -1; wanted an int of at least 0"),
        (("cur_step",), 1.0, "cur_step is 1.0"),
        (("cur_step",), float("nan"), "cur_step is nan"),
        (("pass", "rate"), float("nan"), "rate=nan is out of range"),
        (("pass", "names"), [1.5], "1.5 is not a name"),
        (("parameters", 0, "updates"), -1, "updates of 'W' is -1"),
        (("parameters", 0, "updates"), float("nan"), "updates of 'W' is nan"),
        (("parameters", 0, "shape"), [2**62, 2**62], "array 'W/mean' is float64 of shape \\(3,\\)"),
        (("parameters", 0, "shape"), [-3], "a size of 'W' is -3"),
        (("parameters", 0, "shape"), None, "slots of 'W' are"),
        (("parameters", 0, "dtype"), "float32", "array 'W/mean' is float64 .* by the header float32"),
        (("parameters", 0, "dtype"), "O", "dtype of 'W' is 'O'; wanted one of float16"),
        (("parameters", 0, "dtype"), ["float64"], "dtype of 'W' is"),
        (("parameters", 0, "slots"), ["mean", "mean"], "slots of 'W' are"),
        (("parameters", 0, "slots"), "mean", "slots of 'W' is 'mean'; wanted a dict"),
        (("parameters", 0, "slots"), [1, 2], "a slot of 'W' is 1; wanted a str"),
        (("parameters", 0, "slots"), ["mean"], "array 'W/var' is not in the header"),
        (
            ("parameters", 0, "slots", "mean", "shape"),
            [2],
            "array 'W/mean' is float64 .* by the header float64 of \\(2,\\)",
        ),
        (("parameters", 0, "slots", "mean", "shape"), None, "shape of a slot of 'W' is None; wanted a list"),
        (("parameters", 0, "slots", "mean", "shape"), [-3], "a size of 'W' is -3"),
        (("parameters", 0, "slots", "var", "dtype"), "float32", "array 'W/var' is float64 .* by the header float32"),
        (("parameters", 0, "slots", "var", "dtype"), "int64", "dtype of a slot of 'W' is 'int64'"),
        (("parameters", 0, "slots", "var", "dtype"), "float16", "array 'W/var' is float64 .* by the header float16"),
        (("parameters", 0, "slots", "var", "more"), 1, "wanted a dict of shape, dtype"),
        (("groups",), [], "groups are"),
        (("groups", 0, "match"), "*/bias", "wanted None, for all parameters"),
        (("groups", 0, "settings"), [], "settings is"),
        (("groups", 0, "more"), 1, "wanted a dict of match, settings"),
        (("parameters", 0, "slots"), ["var", "mean"], "'W' has the slots var, mean; Adam keeps mean, var"),
        (("parameters", 0, "name"), 7, "7 and 7 would both be the parameter 7"),
        (("parameters", 0, "name"), {"bytes": "xyz"}, "header"),
        (("parameters", 0, "name"), {"bytes": "00", "str": ""}, "is not a name"),
        (("parameters", 0, "name"), [[[1.5]]], "is not a name"),
        (("parameters", 0, "more"), 1, "wanted a dict of name, shape, dtype, updates, slots"),
        (("more",), 1, "wanted a dict of format_version"),
    ],
    ids=str,
)
def test_a_header_that_cannot_be(place, value, message, opt, victim, tmp_path):
    state = opt.state_dict()
    inside = state["header"]
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    sign(state["header"], state["arrays"], tmp_path / "bad")
    refuses(victim, tmp_path / "bad", message)
    with pytest.raises(CheckpointError, match=message):
        victim.load_state_dict(state)


def test_names_nested_without_end(opt, victim, tmp_path):
    state = opt.state_dict()
    text = json.dumps(state["header"]).replace('"W"', "[" * 900 + "]" * 900, 1)
    sign(text, state["arrays"], tmp_path / "bad")
    refuses(victim, tmp_path / "bad")


FILLERS = ["[]", "{}", '"ab"', '{"name":[]}', "[0]", '{"":0}', "[" * 40 + "]" * 40, "[]      ", '{"a":1} ', "1e-9"]


@pytest.mark.parametrize("filler", FILLERS, ids=repr)
def test_memory_is_of_the_order_of_the_file(filler, opt, victim, tmp_path):
    """A long list, where one goes and where none does. An empty list is 2 bytes in a file, and 88 in memory."""
    state = opt.state_dict()
    listing = ",".join([filler] * (200_000 // len(filler)))
    for field in ("parameters", "names", "losses", "lr"):
        text = json.dumps(state["header"])
        at = text.index(f'"{field}": ') + len(field) + 4
        sign(f'{text[:at]}[{listing}], "x": {text[at:]}', state["arrays"], tmp_path / "bad")
        size = (tmp_path / "bad").stat().st_size
        tracemalloc.start()
        with pytest.raises(CheckpointError):
            victim.load(tmp_path / "bad")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 24 * size


PARAMETER = {"name": "W", "shape": None, "dtype": None, "updates": 0, "slots": {}}
PRIME = sys.hash_info.modulus


def colliding(kind, n):
    """Names whose hashes are equal, as the hash of an int is its remainder."""
    names = [k * PRIME + 5 for k in range(n)]
    return {"ints": names, "tuples": [["a", [k, 1]] for k in names], "negative": [-k for k in names]}[kind]


@pytest.mark.parametrize("where", ["parameters", "pass"])
@pytest.mark.parametrize("kind", ["ints", "tuples", "negative"])
def test_names_of_one_hash_are_refused(kind, where, opt, victim, tmp_path):
    """A dict compares each of them with all the others. A few are no harm."""
    state = opt.state_dict()
    for n in (20, 2000):
        names = colliding(kind, n)
        assert len({hash(names_module.decode(name)) for name in names}) == 1
        if where == "parameters":
            state["header"]["parameters"] = [{**PARAMETER, "name": name} for name in names]
        else:
            state["header"]["pass"] = {"rate": 0.1, "names": names}
        sign(state["header"], state["arrays"], tmp_path / "bad")
        if n == 2000:
            refuses(victim, tmp_path / "bad", "more than 32 names have the same hash")
            with pytest.raises(CheckpointError, match="the same hash"):
                victim.load_state_dict(state)
        else:
            with pytest.raises(CheckpointError) if where == "parameters" else nullcontext() as error:
                Adam().load(tmp_path / "bad")
            assert error is None or "the same hash" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1" * 100_000, "an int of 100000 digits"),
        ("-" + "1" * 400, "an int of 401 digits"),
        ("[" * 101 + "]" * 101, "nested too deeply: more than 100"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply: more than 100"),
    ],
    ids=lambda value: value[:12],
)
def test_numbers_and_nests_that_take_the_square_of_their_length(value, message, opt, victim, tmp_path):
    """Whatever limits of its own the interpreter has been set to."""
    state = opt.state_dict()
    text = json.dumps(state["header"]).replace('"W"', value, 1)
    sign(text, state["arrays"], tmp_path / "bad")
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        refuses(victim, tmp_path / "bad", message)
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize("name", [LARGEST + 1, -LARGEST - 1, ("a", LARGEST + 1)], ids=["large", "small", "inside"])
def test_a_name_that_could_not_be_read_is_not_written(name, tmp_path):
    opt = Adam()
    opt.update(np.ones(2), np.ones(2), name)
    for write in (opt.state_dict, lambda: opt.save(tmp_path / "none")):
        with pytest.raises(ValueError, match=r"parameter name .*an int beyond 1.8e308"):
            write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("key", ["V/mean", "W/near"])
def test_a_changed_name_of_an_array_is_damage(key, strict, opt, victim, tmp_path):
    """Which no checksum covers. In memory it is a parameter that does not fit."""
    state = opt.state_dict()
    sign(state["header"], state["arrays"], tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    assert content.count(b'"W/mean"') == 1
    (tmp_path / "bad").write_bytes(content.replace(b'"W/mean"', f'"{key}"'.encode()))
    before = look(victim)
    with pytest.raises(CheckpointError, match=r"'W/mean' is missing(.|\n)*is not in the header"):
        victim.load(tmp_path / "bad", strict=strict)
    assert look(victim) == before


def test_lists_in_front_of_the_arrays(opt, victim, tmp_path):
    """In the part that safetensors reads, which would take 30 times their size."""
    content = json.dumps({"x": [[]] * 100_000}).encode()
    (tmp_path / "bad").write_bytes(len(content).to_bytes(8, "little") + content)
    refuses(victim, tmp_path / "bad", "damaged|lists and dicts")


def test_a_long_name_with_many_slots(opt, victim, tmp_path, monkeypatch):
    """Whose keys would be as long as the one times the other."""
    keyed = []
    array_key = checking.array_key
    monkeypatch.setattr(checking, "array_key", lambda name, slot: keyed.append(len(str(name))) or array_key(name, slot))
    state = opt.state_dict()
    slots = [f"s{k}" for k in range(10_000)]
    state["header"]["parameters"][0].update(name="n" * 100_000, slots=slots)
    sign(state["header"], state["arrays"], tmp_path / "bad")
    refuses(victim, tmp_path / "bad", r"has 10000 slots; Adam keeps \d+ at most")
    assert sum(keyed) < 10 * (tmp_path / "bad").stat().st_size


JSON = st.recursive(
    st.none() | st.integers(-9, 9) | st.text('[]{}"\\\\,a\u00e9\n', max_size=6),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text('[{"\\\\', max_size=3), of, max_size=3),
)


def walked(value):
    """How many lists and dicts there are, and how many lie in each other, by going through them."""
    if not isinstance(value, list | dict):
        return 0, 0
    found = [walked(item) for item in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(count for count, _ in found), 1 + max((depth for _, depth in found), default=0)


@hypothesis.given(JSON, st.booleans())
def test_lists_and_dicts_are_counted(value, ascii_alone):
    """Brackets in strings, and quotes that are escaped there, are none."""
    assert structure.measured(json.dumps(value, ensure_ascii=ascii_alone)) == walked(value)


def test_what_is_deep_or_full_of_brackets_may_be_a_name(tmp_path):
    """As far as it could be read again; else nothing is written."""
    deep = "x"
    for _ in range(90):
        deep = (deep,)
    names = [deep, "[" * 5000, '"' * 999 + "{" * 5000, "\\" * 999 + '"[' * 999, ((), ((),), ())]
    opt = Adam()
    for name in names:
        opt.update(np.ones(1), np.ones(1), name)
    opt.save(tmp_path / "good")
    assert list(xpopt.load_optimizer(tmp_path / "good").cache) == names
    content = (tmp_path / "good").read_bytes()
    for _ in range(10):
        deep = (deep,)
    opt.update(np.ones(1), np.ones(1), deep)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        opt.save(tmp_path / "good")
    assert (tmp_path / "good").read_bytes() == content


def test_nothing_is_looked_up_outside_the_known_classes(victim, tmp_path):
    """A name that is a class, a module or an attribute somewhere else, is unknown."""
    state = victim.state_dict()
    for name in ("object", "Exception", "builtins.eval", "__import__('os')", "Checkpoints", "ABC", ""):
        state["header"]["rule"]["name"] = name
        sign(state["header"], state["arrays"], tmp_path / "bad")
        with pytest.raises(CheckpointError, match="unknown optimizer"):
            xpopt.load_optimizer(tmp_path / "bad")
