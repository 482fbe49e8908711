"""Reader of pickle streams that imports and calls nothing that the stream names.

Python's unpickler imports the names in a stream and calls them. This one interprets the opcodes (parsed by
`pickletools` of the standard library) and treats names as strings. The names in `PLAIN_BUILDERS` rebuild plain
containers, numbers and arrays through functions of this file, which check their arguments. Every other name, and every
object built with it, becomes an inert `Placeholder`. `stedfm_hf.weights.torch_pickle` adds tensors.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

__all__ = ["PLAIN_BUILDERS", "ClosedUnpickler", "Placeholder"]

_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SCALARS = (str, bytes, int, float, bool, type(None))


class Placeholder:
    """Object that is not rebuilt: it has a name and does nothing."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<placeholder of {self.name}>"


class ClosedUnpickler:
    r"""Reader of the plain data in one pickle stream.

    Args:
        data: Complete stream, of any pickle protocol.

    Attributes:
        placeholders: Names that were not rebuilt, after `load`. A strict caller refuses a stream that has any.
        builders: Functions that rebuild objects, by name; subclasses may add to them.

    Example:
        >>> import pickle
        >>> ClosedUnpickler(pickle.dumps({"epoch": 3, "area": np.float32(0.5)})).load()
        {'epoch': 3, 'area': np.float32(0.5)}
        >>> unpickler = ClosedUnpickler(b"cos\nsystem\n(S'rm -r .'\ntR.")
        >>> unpickler.load(), unpickler.placeholders
        (<placeholder of os.system>, {'os.system'})
    """

    builders: ClassVar[Mapping[str, Callable[..., Any]]]

    def __init__(self, data: bytes) -> None:
        self.placeholders: set[str] = set()
        self._data = data
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Rebuild the object in the stream.

        Returns:
            Object made of dict, list, tuple, set, str, bytes, numbers, NumPy arrays and numbers, and placeholders.

        Raises:
            ValueError, TypeError, LookupError, RuntimeError, OverflowError: If the stream is damaged.
        """
        for opcode, argument, _ in pickletools.genops(self._data):
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, opcode: str, argument: Any) -> None:
        """Execute one opcode: push a literal, a constant or a short tuple; delegate all other opcodes."""
        stack = self._stack
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _FIXED_TUPLES:
            count = _FIXED_TUPLES[opcode]
            items = [stack.pop() for _ in range(count)]
            stack.append(tuple(reversed(items)))
        else:
            self._step_on_objects(opcode, argument)

    def _step_on_objects(self, opcode: str, argument: Any) -> None:
        """Execute an opcode that builds or changes an object, or names a function or class.

        MARK puts the stack aside and begins an empty one; `_pop_mark` returns the items since then and restores the
        stack.

        Raises:
            ValueError: If plain data does not need the opcode.
        """
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marked.append(stack)
                self._stack = []
            case "POP":
                stack.pop() if stack else self._pop_mark()
            case "POP_MARK":
                self._pop_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(set())
            case "TUPLE":
                self._push(tuple(self._pop_mark()))
            case "LIST":
                self._push(self._pop_mark())
            case "DICT":
                self._push(_fill_dict({}, self._pop_mark()))
            case "FROZENSET":
                self._push(frozenset(map(_key, self._pop_mark())))
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_mark())
            case "SETITEM":
                value = stack.pop()
                self._set_items([stack.pop(), value])
            case "SETITEMS":
                self._set_items(self._pop_mark())
            case "GLOBAL":
                stack.append(self._name(argument))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(self._name(f"{_string(stack.pop())} {_string(name)}"))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(self._build(stack.pop(), arguments))
            case "NEWOBJ_EX":
                del stack[-1]  # keyword arguments: nothing that is rebuilt here takes any
                arguments = stack.pop()
                stack.append(self._build(stack.pop(), arguments))
            case "OBJ":
                what, *rest = self._pop_mark()
                self._push(self._build(what, tuple(rest)))
            case "INST":
                arguments = tuple(self._pop_mark())
                self._push(self._build(self._name(argument), arguments))
            case "BUILD":
                state = stack.pop()
                self._set_state(stack[-1], state)
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case "EXT1" | "EXT2" | "EXT4":
                stack.append(self._name(f"copyreg extension_{argument}"))
            case _:  # PERSID, NEXT_BUFFER, READONLY_BUFFER: neither torch nor NumPy writes them to files
                raise ValueError(f"the pickle opcode {opcode} does not occur in plain data")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(_key, items))

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            _fill_dict(target, items)

    def _name(self, module_and_name: str) -> Placeholder:
        name = module_and_name.replace(" ", ".").replace("__builtin__.", "builtins.")
        if not self.knows(name):
            self.placeholders.add(name)
        return Placeholder(name)

    def knows(self, name: str) -> bool:
        """Return whether an object of this name is rebuilt without loss."""
        return name in self.builders or name in _NAMES_WITHOUT_LOSS

    def persistent(self, persistent_id: Any) -> Any:
        """Rebuild an object that is stored outside the stream; plain data have none."""
        raise ValueError("the pickle names an object outside itself")

    def _build(self, what: Any, arguments: Any) -> Any:
        """Rebuild `what(*arguments)` if its name has a builder, else return a placeholder."""
        if not isinstance(what, Placeholder):
            raise ValueError("the pickle calls an object that is not a name")
        builder = self.builders.get(what.name)
        if builder is None or not isinstance(arguments, tuple):
            return Placeholder(what.name)
        value = builder(*arguments)
        if isinstance(value, Placeholder):
            self.placeholders.add(value.name)
        return value

    def _set_state(self, target: Any, state: Any) -> None:
        """Set the numbers of an array (opcode BUILD); any other state is dropped."""
        if isinstance(target, np.dtype):
            if state[1] not in ("<", "|", "="):
                raise ValueError("big-endian NumPy data is not supported")
        elif isinstance(target, np.ndarray):
            _, shape, dtype, is_fortran, content = state
            shape = tuple(map(int, shape))
            if not isinstance(dtype, np.dtype) or not isinstance(content, list if dtype.hasobject else bytes):
                raise ValueError("the content of an array does not fit its dtype")
            # NumPy checks the count of bytes, but not that of objects.
            if dtype.hasobject and (len(content) != math.prod(shape) or min(shape, default=0) < 0):
                raise ValueError("the number of objects in an array does not fit its shape")
            # Only a dtype of `_numpy_dtype` gets here, so this takes bytes, or objects that were rebuilt, and runs
            # nothing. NumPy's type hint asks for a numpy.bool, its code for an int.
            target.__setstate__((1, shape, dtype, bool(is_fortran), content))  # type: ignore[arg-type]


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("the pickle holds an object where a name belongs")
    return value


def _key(value: Any) -> Any:
    """Return a key; keys that are not scalars are replaced, because hashing nested tuples can take very long."""
    return value if isinstance(value, _SCALARS) else Placeholder("a key that is neither a string nor a number")


def _fill_dict(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("the pickle holds a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value
    return target


def _ordered_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    content: dict[Any, Any] = {}
    for key, value in pairs:
        content[_key(key)] = value
    return content


def _numpy_dtype(code: Any, *_: Any) -> np.dtype[Any] | Placeholder:
    if not isinstance(code, str) or not re.fullmatch(r"[<|=]?([iu][1248]|f[248]|c(8|16)|b1|O[48]?|[SU]\d{1,4})", code):
        return Placeholder("numpy.dtype other than numbers, text and objects")
    return np.dtype("O" if "O" in code else code)


def _numpy_scalar(dtype: Any, content: Any = None, *_: Any) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(content, bytes):
        return Placeholder("numpy scalar other than a number or text")
    (number,) = np.frombuffer(content, dtype=dtype)
    return number


def _numpy_array(*_: Any) -> np.ndarray:
    return np.empty(0, dtype=np.uint8)  # filled by the BUILD that follows


def _numpy_from_buffer(content: Any, dtype: Any, shape: Any, order: Any, *rest: Any) -> Any:
    """Rebuild an array in the form of pickle protocol 5."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(content, bytes | bytearray) or any(rest):
        return Placeholder("numpy.ndarray of objects")
    return np.frombuffer(content, dtype=dtype).reshape(tuple(map(int, shape)), order="F" if order == "F" else "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Rebuild bytes of protocol 2, which stores them as text with a codec; NumPy uses only this one."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("the codec of bytes is unknown")
    return _string(text).encode("latin1")


PLAIN_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},  # the factory is dropped: it may be anything
    "builtins.set": lambda items=(): set(map(_key, items)),
    "builtins.bytes": lambda *content: Placeholder("builtins.bytes") if content else b"",
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_dtype,
    **{f"numpy.{core}.multiarray.scalar": _numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _numpy_array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _numpy_from_buffer for core in ("core", "_core")},
}
"""Functions that rebuild objects, by the name of their class or function."""
ClosedUnpickler.builders = PLAIN_BUILDERS
# Named as arguments of the above, where they are not needed: nothing is lost with them.
_NAMES_WITHOUT_LOSS = frozenset(
    ["numpy.ndarray", *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "tuple", "str", "bool"))]
)
