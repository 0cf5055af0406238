"""A small writer of LLVM IR: functions of pointers and 64-bit integers, with loops, variables and vectors of floats.

Values are the names of LLVM's SSA registers ("%v7") or integer literals, as str or int. Variables are stack slots that
LLVM's `sroa` pass turns into registers, so that loops need no phi nodes here.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager

Value = str | int


class Variable:
    """A mutable scalar or vector; lives in registers once the code is optimised."""

    def __init__(self, code: "Function", kind: str, value: Value) -> None:
        self.code, self.kind = code, kind
        self.slot = f"%s{code.fresh()}"
        code.slots.append(f"  {self.slot} = alloca {kind}")
        self.set(value)

    def get(self) -> str:
        """The value it has here."""
        return self.code.op(f"load {self.kind}, ptr {self.slot}")

    def set(self, value: Value) -> None:
        """Give it another value from here on."""
        self.code.emit(f"store {self.kind} {value}, ptr {self.slot}")


class Function:
    """One function `void name(...)`; `pointers` never alias, `integers` are int64. Vectors have `width` floats."""

    def __init__(self, name: str, pointers: list[str], integers: list[str], width: int) -> None:
        self.name, self.width, self.vector = name, width, f"<{width} x float>"
        self.has_masks = width == 16  # AVX-512 loads and stores a part of a vector as fast as all of it
        self.lasts = True  # False: it holds addresses of this process
        self.arguments = [f"ptr noalias %{p}" for p in pointers] + [f"i64 %{i}" for i in integers]
        self.slots: list[str] = []
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self.count = 0

    def fresh(self) -> int:
        """A number not used before."""
        self.count += 1
        return self.count

    def emit(self, line: str) -> None:
        """Append one instruction without a result."""
        self.lines.append("  " + line)

    def op(self, instruction: str) -> str:
        """Append one instruction and name its result."""
        name = f"%v{self.fresh()}"
        self.emit(f"{name} = {instruction}")
        return name

    def text(self) -> str:
        """The module: this function and the intrinsics it calls."""
        head = f"define void @{self.name}({', '.join(self.arguments)}) #0 {{\nentry:\n"
        body = "\n".join([*self.slots, *self.lines, "  ret void", "}"])
        wide = 'attributes #0 = { nounwind "prefer-vector-width"="512" "no-builtins" }'
        return "\n".join([head + body, *sorted(self.declared), wide])

    # --- control ---

    @contextmanager
    def loop(self, start: Value, stop: Value, step: Value = 1) -> Iterator[str]:
        """for i in range(start, stop, step), yields i."""
        n = self.fresh()
        index = Variable(self, "i64", start)
        self.emit(f"br label %head{n}")
        self.lines.append(f"head{n}:")
        i = index.get()
        self.emit(f"br i1 {self.op(f'icmp slt i64 {i}, {stop}')}, label %body{n}, label %done{n}")
        self.lines.append(f"body{n}:")
        yield i
        index.set(self.add(i, step))
        self.emit(f"br label %head{n}")
        self.lines.append(f"done{n}:")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """if condition, an i1."""
        n = self.fresh()
        self.emit(f"br i1 {condition}, label %then{n}, label %after{n}")
        self.lines.append(f"then{n}:")
        yield
        self.emit(f"br label %after{n}")
        self.lines.append(f"after{n}:")

    # --- integers and pointers ---

    def variable(self, value: Value = 0, kind: str = "i64") -> Variable:
        """A new variable, set here."""
        return Variable(self, kind, value)

    def add(self, a: Value, b: Value) -> str:
        """a + b."""
        return self.op(f"add nsw i64 {a}, {b}")

    def sub(self, a: Value, b: Value) -> str:
        """a - b."""
        return self.op(f"sub nsw i64 {a}, {b}")

    def mul(self, a: Value, b: Value) -> str:
        """a * b."""
        return self.op(f"mul nsw i64 {a}, {b}")

    def least(self, a: Value, b: Value) -> str:
        """min(a, b)."""
        return self.op(f"select i1 {self.op(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def pick(self, condition: str, a: str, b: str) -> str:
        """Pointer a if condition else b."""
        return self.op(f"select i1 {condition}, ptr {a}, ptr {b}")

    def at(self, pointer: str, index: Value, kind: str = "float") -> str:
        """&pointer[index], counted in `kind`s."""
        return self.op(f"getelementptr {kind}, ptr {pointer}, i64 {index}")

    def prefetch(self, pointer: str, floats: int, write: bool = False, level: int = 1) -> None:
        """Call `floats` floats into the cache of that level, whether they are there or not."""
        self.declared.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        how = f"i32 {int(write)}, i32 {4 - level}, i32 1"
        for line in range(0, floats, 16):
            self.emit(f"call void @llvm.prefetch.p0(ptr {self.at(pointer, line)}, {how})")

    def load_int(self, pointer: str, index: Value, kind: str = "i32") -> str:
        """pointer[index], never negative, as an i64; kind "u16" has no sign."""
        if kind == "u16":
            place = self.at(pointer, index, "i16")
            return self.op(f"zext i16 {self.op(f'load i16, ptr {place}')} to i64")
        found = self.op(f"load {kind}, ptr {self.at(pointer, index, kind)}")
        return found if kind == "i64" else self.op(f"zext nneg {kind} {found} to i64")

    # --- vectors ---

    def zero(self) -> Variable:
        """A vector variable, set to zero here."""
        return Variable(self, self.vector, "zeroinitializer")

    def load(self, pointer: str, mask: str | None = None) -> str:
        """`width` floats, at any alignment; with a mask see load_first."""
        if mask is not None:
            return self.load_first(pointer, mask)
        return self.op(f"load {self.vector}, ptr {pointer}, align 4")

    def store(self, vector: str, pointer: str, mask: str | None = None) -> None:
        """`width` floats, at any alignment, or the masked lanes."""
        if mask is not None:
            self.store_first(vector, pointer, mask)
            return
        self.emit(f"store {self.vector} {vector}, ptr {pointer}, align 4")

    def add_to_doubles(self, vector: str, pointer: str) -> None:
        """Add `width` floats to as many doubles there."""
        kind = f"<{self.width} x double>"
        known = self.op(f"load {kind}, ptr {pointer}, align 8")
        more = self.op(f"fpext {self.vector} {vector} to {kind}")
        self.emit(f"store {kind} {self.op(f'fadd {kind} {known}, {more}')}, ptr {pointer}, align 8")

    def broadcast(self, pointer: str) -> str:
        """The float there in every lane."""
        scalar = self.op(f"load float, ptr {pointer}, align 4")
        first = self.op(f"insertelement {self.vector} poison, float {scalar}, i64 0")
        return self.shuffle(first, first, [0] * self.width)

    def shuffle(self, a: str, b: str, lanes: list[int]) -> str:
        """Lanes of a (0 ...) and b (width ...)."""
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.op(f"shufflevector {self.vector} {a}, {self.vector} {b}, <{len(lanes)} x i32> <{mask}>")

    def plus(self, a: str, b: str) -> str:
        """a + b, lane by lane."""
        return self.op(f"fadd {self.vector} {a}, {b}")

    def minus(self, a: str, b: str) -> str:
        """a - b, lane by lane."""
        return self.op(f"fsub {self.vector} {a}, {b}")

    def times(self, a: str, b: str) -> str:
        """a * b, lane by lane."""
        return self.op(f"fmul {self.vector} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """a * b + c; one rounding where the CPU can."""
        v = self.vector
        self.declared.add(f"declare {v} @llvm.fmuladd.v{self.width}f32({v}, {v}, {v})")
        return self.op(f"call {v} @llvm.fmuladd.v{self.width}f32({v} {a}, {v} {b}, {v} {c})")

    def constant(self, value: float) -> str:
        """The number in every lane."""
        rounded = struct.unpack("f", struct.pack("f", value))[0]
        bits = struct.pack(">d", rounded).hex()  # LLVM writes a float as the double that is equal to it
        return f"<{', '.join([f'float 0x{bits}'] * self.width)}>"

    def times_by(self, a: str, number: float) -> str:
        """a * number."""
        return self.times(a, self.constant(number))

    def fma_by(self, a: str, number: float, c: str) -> str:
        """a * number + c."""
        return self.fma(a, self.constant(number), c)

    def gather(self, pointers: list[str]) -> str:
        """The floats there, one for each lane."""
        vector = "poison"
        for lane, pointer in enumerate(pointers):
            scalar = self.op(f"load float, ptr {pointer}, align 4")
            vector = self.op(f"insertelement {self.vector} {vector}, float {scalar}, i64 {lane}")
        return vector

    def mask(self, floats: Value, first: int = 0) -> str:
        """Lanes [first, floats); a literal gives a constant, anything else begins with lane 0."""
        bits = f"<{self.width} x i1>"
        if isinstance(floats, int):
            return f"{bits} <{', '.join(f'i1 {int(first <= lane < floats)}' for lane in range(self.width))}>"
        whole = f"<{self.width} x i64>"
        one = self.op(f"insertelement {whole} poison, i64 {floats}, i64 0")
        every = self.op(f"shufflevector {whole} {one}, {whole} poison, <{self.width} x i32> zeroinitializer")
        lanes = ", ".join(f"i64 {lane}" for lane in range(self.width))
        return f"{bits} " + self.op(f"icmp slt {whole} <{lanes}>, {every}")

    def only(self, vector: str, mask: str | None) -> str:
        """The masked lanes, zero in the others; all of them without a mask."""
        v = self.vector
        return vector if mask is None else self.op(f"select {mask}, {v} {vector}, {v} zeroinitializer")

    def positive(self, test: str, vector: str) -> str:
        """The vector, zero in the lanes where `test` is 0 or less; where it is no number, the vector."""
        below = self.op(f"fcmp ole {self.vector} {test}, zeroinitializer")
        return self.op(f"select <{self.width} x i1> {below}, {self.vector} zeroinitializer, {self.vector} {vector}")

    def load_first(self, pointer: str, mask: str) -> str:
        """The masked lanes, zero in the others, whose memory is not touched."""
        v, n = self.vector, self.width
        self.declared.add(f"declare {v} @llvm.masked.load.v{n}f32.p0(ptr, i32, <{n} x i1>, {v})")
        return self.op(f"call {v} @llvm.masked.load.v{n}f32.p0(ptr {pointer}, i32 4, {mask}, {v} zeroinitializer)")

    def store_some(self, vector: str, pointer: str, count: int) -> None:
        """The first `count` lanes, in at most two pieces that may overlap; needs no mask."""
        if count == self.width:
            self.store(vector, pointer)
            return
        piece = 1 << (count.bit_length() - 1)
        for first in {0, count - piece}:
            kind, lanes = f"<{piece} x float>", ", ".join(f"i32 {first + lane}" for lane in range(piece))
            some = self.op(f"shufflevector {self.vector} {vector}, {self.vector} poison, <{piece} x i32> <{lanes}>")
            self.emit(f"store {kind} {some}, ptr {self.at(pointer, first)}, align 4")

    def store_first(self, vector: str, pointer: str, mask: str) -> None:
        """The masked lanes."""
        v, n = self.vector, self.width
        self.declared.add(f"declare void @llvm.masked.store.v{n}f32.p0({v}, ptr, i32, <{n} x i1>)")
        self.emit(f"call void @llvm.masked.store.v{n}f32.p0({v} {vector}, ptr {pointer}, i32 4, {mask})")

    def transpose(self, rows: list[str]) -> list[str]:
        """A width x width matrix, given and returned by rows."""
        n = self.width
        for _ in range(int(math.log2(n))):
            low = [lane for i in range(n // 2) for lane in (i, n + i)]
            high = [lane for i in range(n // 2, n) for lane in (i, n + i)]
            # the perfect shuffle of rows i and i + n / 2, log2(n) times over, is the transpose
            pairs = [(rows[i], rows[i + n // 2]) for i in range(n // 2)]
            rows = [self.shuffle(a, b, lanes) for a, b in pairs for lanes in (low, high)]
        return rows

    def sums(self, vectors: list[str]) -> str:
        """One vector whose lane i is the sum of the lanes of vectors[i] (at most `width` of them)."""
        rows = vectors + ["zeroinitializer"] * (self.width - len(vectors))
        # each fold adds what two moves take of a pair of rows: the units in `some`, and the others
        folds = {4: [[0, 1], [0, 2]], 2: [[0]], 1: []}  # by the number of units
        # lanes first, within pieces of 128 bits, then these pieces, between which moves take longer
        for unit, units in ((1, 4), (4, self.width // 4)):
            for some in folds[units]:
                others = [u for u in range(units) if u not in some]
                one, other = (self._lanes_of_pair(unit, units, taken) for taken in (some, others))
                rows = [
                    a if a == b == "zeroinitializer" else self.plus(self.shuffle(a, b, one), self.shuffle(a, b, other))
                    for a, b in zip(rows[::2], rows[1::2], strict=True)
                ]
        return rows[0]

    def _lanes_of_pair(self, unit: int, units: int, taken: list[int]) -> list[int]:
        """For `shuffle`: of each group of so many units of so many lanes, some units of the first vector, then of the
        second."""
        group = unit * units
        return [
            vector + first + unit * u + lane
            for first in range(0, self.width, group)
            for vector in (0, self.width)
            for u in taken
            for lane in range(unit)
        ]
