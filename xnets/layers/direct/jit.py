"""Compiles IR for the CPU this runs on, once for each function and process."""

import ctypes
import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch

from xnets.layers.direct.forked import ForkedLock
from xnets.layers.direct.ir import Function

_lock = ForkedLock()
_numbers = itertools.count()  # of kernels, whose names have to differ in one engine
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


@torch.compiler.assume_constant_result
def missing() -> str:
    """Why nothing can be compiled here, in a few words; "" if it can. The first to ask waits for llvmlite's import."""
    return _missing()


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


def registers_for_sums() -> int:
    """How many of the CPU's vector registers a kernel may sum in: AVX-512 has 32, others have 16 at least."""
    return 22 if vector_width() == 16 else 10


def _features() -> str:
    return _forced[-1][1] if _forced else _host()[1]


def compiled(generate: Callable[..., Function], *shape: Any) -> Callable[..., None]:
    """generate(*shape) as a callable of pointers (int addresses) and integers. ctypes releases the GIL in the call."""
    return _compiled(generate, shape, _features())


@functools.cache
def _compiled(generate: Callable[..., Function], shape: tuple[Any, ...], features: str) -> Callable[..., None]:
    with _lock.now:
        function = generate(*shape)
        address = _build(function)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p if "ptr" in a else ctypes.c_int64 for a in function.arguments])
    return prototype(address)


def _build(function: Function) -> int:
    """The address of its machine code. What LLVM needed for it, megabytes, is given back to the system."""
    llvm = _llvm()
    function.name = f"{function.name}_{next(_numbers)}"
    cpu = "x86-64" if _forced else llvm.get_host_cpu_name()
    engine, machine = _engine(cpu, _features())
    module = llvm.parse_assembly(function.text())
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False  # done by hand
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    engine.add_module(module)
    engine.finalize_object()
    address = engine.get_function_address(function.name)
    engine.remove_module(module)  # the engine keeps the machine code
    module.close()
    passes.close()
    if trim := _trim():
        trim(0)
    return address


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
