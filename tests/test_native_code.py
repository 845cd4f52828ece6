"""Machine code of kernels, called without numba: the same results, and arguments of other types are found out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.engines import are_at_hand, kernel_cache, native_code, native_entries, ready
from butter_etl.engines.compiling import Kernel, compiled, compiled_in_place
from butter_etl.engines.native_code import OTHER, signature_of

ROOT = Path(__file__).parents[1]


@compiled_in_place
def twice(value):
    return value * 2


@compiled
def weigh(values, table, first, factor, doubled, offset):
    """A number that depends on each element and each argument."""
    total = 0.0
    for place in range(first, len(values)):
        value = float(values[place])
        total += twice(value) if doubled else value
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            total += row * 10 + column * factor if offset is None else table[row, column] * offset
    return int(total)


@compiled
def fill(values, value):
    for place in range(len(values)):
        values[place] = value


@compiled
def is_long(values):
    return len(values) > 3


def native(kernel, *arguments):
    return native_code.load(native_entries.build(kernel.dispatcher, signature_of(arguments)))


ARGUMENTS = np.arange(9, dtype=np.uint16), np.arange(6, dtype=np.int32).reshape(2, 3), 2, 1.5, True, None


def others(argument):
    """Values that an argument may be taken for, and is not."""
    if isinstance(argument, np.ndarray):
        kinds = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
        yield from (argument.astype(kind) for kind in kinds if kind != argument.dtype)
        yield argument.astype(argument.dtype.newbyteorder(">"))
        yield np.repeat(argument, 2, axis=-1)[..., ::2]
        yield argument[None]
        yield np.zeros(argument.nbytes + 1, np.uint8)[1:].view(argument.dtype).reshape(argument.shape)
        yield np.ma.masked_array(argument)
        yield argument.ravel()[0]
        yield from (argument.tolist(), b"bytes of some length", memoryview(argument))
    elif argument is None:
        yield from (False, 0, 1.5, "none")
    elif isinstance(argument, bool):
        yield from (None, "true", 2)
    elif isinstance(argument, int):
        yield from (1.5, None, "2")
    else:
        yield from (None, object())


def test_it_returns_what_numba_returns():
    called = native(weigh, *ARGUMENTS)
    assert called(*ARGUMENTS) == weigh.dispatcher(*ARGUMENTS) == weigh.py_func(*ARGUMENTS)
    with_offset = (*ARGUMENTS[:-1], 3)
    assert native(weigh, *with_offset)(*with_offset) == weigh.py_func(*with_offset)
    values = np.zeros(5)
    assert native(fill, values, 2.5)(values, 2.5) is None
    assert values.tolist() == [2.5] * 5
    assert [native(is_long, values)(part) for part in (values, values[:3], values[3:])] == [True, False, False]


@pytest.mark.parametrize("place", range(len(ARGUMENTS)))
def test_an_argument_of_another_type_is_found_out_before_anything_is_read(place):
    called = native(weigh, *ARGUMENTS)
    for other in others(ARGUMENTS[place]):
        given_ = [*ARGUMENTS[:place], other, *ARGUMENTS[place + 1 :]]
        try:
            found = called(*given_)
        except (TypeError, ValueError):
            continue
        assert found is OTHER, other


def test_numbers_of_numpy_and_arrays_that_cannot_be_written_are_what_they_seem():
    called = native(weigh, *ARGUMENTS)
    locked = ARGUMENTS[0].copy()
    locked.flags.writeable = False
    assert called(locked, ARGUMENTS[1], np.int64(2), np.float32(1.5), np.True_, None) == called(*ARGUMENTS)


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(0, 9))
def test_arrays_of_any_length_are_read_whole(values, first):
    array = np.array(values, np.uint8)
    table = np.zeros((0, 5), np.int32)
    called = native_of_bytes()
    assert called(array, table, first, 1.0, False, None) == sum(values[first:])


def native_of_bytes(found=[]):  # noqa: B006 (made once)
    if not found:
        found.append(native(weigh, np.zeros(1, np.uint8), np.zeros((1, 1), np.int32), 0, 1.0, False, None))
    return found[0]


def test_a_kernel_takes_machine_code_that_is_at_hand_and_numba_for_all_else(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernel = Kernel(is_long.py_func)
    bytes_, numbers = np.zeros(4, np.uint8), np.zeros(2)
    calls = [(kernel, (bytes_,)), (kernel, (numbers,))]
    assert not are_at_hand(calls, [])
    for call in calls:
        ready(*call, [])
    assert are_at_hand(calls, [])
    assert [kernel(bytes_), kernel(numbers), kernel(bytes_)] == [True, False, True]
    assert "dispatcher" not in vars(kernel) or not kernel.dispatcher.nopython_signatures[2:]
    assert kernel(np.zeros(9, np.float32)) is True  # by numba
    assert kernel(np.zeros((9, 2))[:, 0]) is True
    again = Kernel(is_long.py_func)
    assert are_at_hand([(again, (bytes_,))], [])
    monkeypatch.setattr(native_entries, "build", lambda *_: pytest.fail("it is kept"))
    ready(again, (bytes_,), [])
    assert again(bytes_) is True


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None])
def test_kept_code_that_is_torn_is_compiled_anew(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    ready(Kernel(is_long.py_func), (np.zeros(4),), [])
    (file,) = (path for path in tmp_path.rglob("native-*") if path.suffix != ".turn")
    content = file.read_bytes()
    file.write_bytes(content[:-9] if damage is None else damage)
    kernel = Kernel(is_long.py_func)
    ready(kernel, (np.zeros(4),), [])
    assert kernel(np.zeros(4)) is True
    monkeypatch.setattr(native_entries, "build", lambda *_: pytest.fail("it is kept"))
    again = Kernel(is_long.py_func)
    ready(again, (np.zeros(4),), [])
    assert again(np.zeros(4)) is True


def raises(values, number):
    if number > 2:
        raise ValueError("too large")
    return len(values)


def allocates(values, number):
    return len(np.empty(number)) + len(values)


def returns_a_pair(values, number):
    return len(values), number


@pytest.mark.parametrize("function", [raises, allocates, returns_a_pair])
def test_what_machine_code_cannot_do_alone_is_refused_when_it_is_built(function):
    kernel = Kernel(function)
    with pytest.raises(TypeError, match=f"{function.__name__} returns|a kernel that raises, allocates or calls"):
        native(kernel, np.zeros(3), 1)


def test_threads_compute_side_by_side():
    """The interpreter is not held: one thread's call goes on while another runs Python."""
    values = np.arange(3, dtype=np.int64)
    spin, turns = native(Kernel(_spin), values, 0), 0
    thread = threading.Thread(target=spin, args=(values, 10**8))
    thread.start()
    while thread.is_alive():
        turns += 1
    assert turns > 1000


def _spin(values, most):
    for _ in range(most):
        values[0] = (values[0] * 6364136223846793005 + values[1]) ^ values[2]


LATER = """
import sys
import numpy as np
from butter_etl.store import page_reading
page_reading.KERNELS.ready(np.dtype(np.uint32))
assert "numba" not in sys.modules, "it is imported to read"
import numba

@numba.njit
def fails(values, number):
    if number > 2:
        raise ValueError("too large")
    return values[number:].copy()

assert len(fails(np.zeros(4), 1)) == 3
try:
    fails(np.zeros(4), 3)
except ValueError as error:
    assert str(error) == "too large"
else:
    raise AssertionError
"""


def test_numba_that_comes_later_raises_and_allocates_as_ever():
    from butter_etl.store import page_reading

    page_reading.KERNELS.ready(np.dtype(np.uint32))  # compiled, wherever this runs first
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LATER], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_python_or_numpy_has_files_of_its_own(monkeypatch):
    prints = {kernel_cache.fingerprint([])}
    for name in ("_versions", "_cpu_features"):
        with monkeypatch.context() as patched:
            patched.setattr(kernel_cache, name, lambda: "9.9")
            prints.add(kernel_cache.fingerprint([]))
    assert len(prints) == 3


TWO_KERNELS = """
import sys
import numpy as np
from pathlib import Path
from butter_etl.engines import compiled, ready

def adder(number):
    @compiled
    def inner(values: np.ndarray, place: int) -> int:
        total = 0
        for _ in range(place):
            for value in values:
                total = total * 2 + value * number
        return total
    return inner

one, ten = adder(1), adder(10)

@compiled
def by_one(values: np.ndarray) -> int:
    return one(values, 3) + one(values[1:], 2)

@compiled
def by_ten(values: np.ndarray) -> int:
    return ten(values, 3) + ten(values[1:], 2)

for name in sys.argv[1:]:
    kernel, values = globals()[name], np.arange(5)
    ready(kernel, (values,), [Path(__file__)])
    print(kernel(values), "numba" in sys.modules)
"""


def test_code_of_two_processes_does_not_call_each_others_functions(tmp_path, monkeypatch):
    """Numba gives both functions one name, each the first of a process: only entries may be seen from outside."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "two_kernels.py").write_text(TWO_KERNELS)

    def said(*names):
        command = [sys.executable, tmp_path / "two_kernels.py", *names]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
        return [line.split() for line in done.stdout.splitlines()]

    ((by_one, _),), ((by_ten, _),) = said("by_one"), said("by_ten")
    assert int(by_ten) == 10 * int(by_one) != 0
    for names, expected in ((("by_one", "by_ten"), [by_one, by_ten]), (("by_ten", "by_one"), [by_ten, by_one])):
        assert said(*names) == [[number, "False"] for number in expected]
