"""Compiles IR for the CPU this runs on, once for each function and machine (see machine_code.py)."""

import ctypes
import functools
import hashlib
import sys
from collections.abc import Callable
from typing import Any

from xnets.layers.direct.forked import ForkedLock
from xnets.layers.direct.ir import Function
from xnets.layers.direct.machine_code import kept

RECIPE = "1"  # raise it when _machine_code or _engine changes: code that is kept on disk is of another one then

_lock = ForkedLock()
_addresses: dict[str, int] = {}  # of machine code, by all that it depends on
_forced: list[tuple[int, str]] = []  # (width, features) instead of the CPU's, for tests


@functools.cache
def _llvm() -> Any:
    """llvmlite's binding, imported with the first kernel: it takes longer than the rest of xnets."""
    import llvmlite.binding

    llvmlite.binding.initialize_native_target()
    llvmlite.binding.initialize_native_asmprinter()
    return llvmlite.binding


@functools.cache
def _host() -> tuple[int, str]:
    try:
        features = _llvm().get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this CPU
        return 4, ""
    width = 16 if features.get("avx512f") else 8 if features.get("avx2") and features.get("fma") else 4
    return width, features.flatten()


def missing() -> str:
    """Why nothing can be compiled here, in a few words; "" if it can. The first to ask waits for llvmlite's import."""
    return _missing()


# what torch.compiler.assume_constant_result sets; to call it imports torch._dynamo, which takes as long as torch
missing._dynamo_marked_constant = True


@functools.cache
def _missing() -> str:
    try:
        _llvm()
    except ModuleNotFoundError:
        return "llvmlite is not installed"
    except Exception as error:  # of another machine or Python: ImportError, OSError, RuntimeError
        return f"llvmlite does not load ({type(error).__name__})"
    return ""


def vector_width() -> int:
    """Floats in the widest vector of this CPU: 16 with AVX-512, 8 with AVX2, else 4."""
    return _forced[-1][0] if _forced else _host()[0]


def lanes_for(count: int) -> int:
    """Floats of the shortest vector that holds so many, four at least; of the widest where none does."""
    return min(vector_width(), max(4, 1 << (count - 1).bit_length()))


def registers_for_sums() -> int:
    """How many of the CPU's vector registers a kernel may sum in: AVX-512 has 32, others have 16 at least."""
    return 22 if vector_width() == 16 else 10


def _features() -> str:
    return _forced[-1][1] if _forced else _host()[1]


def compiled(generate: Callable[..., Function], *shape: Any) -> Callable[..., None]:
    """generate(*shape) as a callable of pointers (int addresses) and integers, whose own address is its `address`.
    ctypes releases the GIL in the call."""
    return _compiled(generate, shape, _features())


@functools.cache
def _compiled(generate: Callable[..., Function], shape: tuple[Any, ...], features: str) -> Callable[..., None]:
    with _lock.now:
        function = generate(*shape)
        address = _build(function)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p if "ptr" in a else ctypes.c_int64 for a in function.arguments])
    kernel = prototype(address)
    kernel.address = address
    return kernel


def _build(function: Function) -> int:
    """The address of its machine code."""
    llvm = _llvm()
    cpu = "x86-64" if _forced else llvm.get_host_cpu_name()
    about = (RECIPE, _versions(), llvm.get_default_triple(), cpu, _features(), function.text())
    key = hashlib.sha256("\n".join(about).encode()).hexdigest()
    if key not in _addresses:
        function.name = f"{function.name}_{key}"  # names have to differ in one engine
        engine, machine = _engine(cpu, _features())
        make = functools.partial(_machine_code, function.text(), machine)
        code = kept(key, make) if function.lasts else make()
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _addresses[key] = engine.get_function_address(function.name)
    return _addresses[key]


@functools.cache
def _versions() -> str:
    import llvmlite

    return f"llvmlite {llvmlite.__version__} {_llvm().llvm_version_info}"


def _machine_code(text: str, machine: Any) -> bytes:
    """An object file. What LLVM needed for it, megabytes, is given back to the system."""
    llvm = _llvm()
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False  # done by hand
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    code = machine.emit_object(module)
    module.close()
    passes.close()
    if trim := _trim():
        trim(0)
    return code


@functools.cache
def _engine(cpu: str, features: str) -> tuple[Any, Any]:
    """One for all kernels, which owns their machine code, and so lives as long as the process; and its machine."""
    llvm = _llvm()
    machine, same = (
        llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
        for _ in range(2)
    )
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine), same  # the first is the engine's own now


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim, which gives freed memory back; None where there is no glibc."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
