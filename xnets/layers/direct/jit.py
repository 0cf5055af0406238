"""Compiles IR for the CPU this runs on, once for each function and process."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from xnets.layers.direct.forked import ForkedLock
from xnets.layers.direct.ir import Function

_lock = ForkedLock()
_kept: list[Any] = []  # engines own the machine code, so they live as long as the process
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


def vector_width() -> int:
    """Floats in the widest vector of this CPU: 16 with AVX-512, 8 with AVX2, else 4."""
    return _forced[-1][0] if _forced else _host()[0]


def _features() -> str:
    return _forced[-1][1] if _forced else _host()[1]


def compiled(generate: Callable[..., Function], *shape: Any) -> Callable[..., None]:
    """generate(*shape) as a callable of pointers (int addresses) and integers. ctypes releases the GIL in the call."""
    return _compiled(generate, shape, _features())


@functools.cache
def _compiled(generate: Callable[..., Function], shape: tuple[Any, ...], features: str) -> Callable[..., None]:
    with _lock.now:
        function = generate(*shape)
        engine = _build(function.text())
        address = engine.get_function_address(function.name)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p if "ptr" in a else ctypes.c_int64 for a in function.arguments])
    return prototype(address)


def _build(text: str) -> Any:
    llvm = _llvm()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu="x86-64" if _forced else llvm.get_host_cpu_name(), features=_features(), opt=3, jit=True
    )
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False  # done by hand
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _kept.append((engine, module, machine))
    return engine
