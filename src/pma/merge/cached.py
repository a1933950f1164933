"""Compiling by numba, and loading what it has compiled before without the parts of it that only compiling needs.

numba imports its whole library of array functions, and with it scipy's BLAS, while it looks into its cache: a third of
a second, longer than a small merge takes. This goes round numba's own entry to its cache. Where numba's inside has
changed, or nothing is cached, the function is compiled by calling it, as ever.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba import njit
from numba.core import environment
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys
from numba.core.typing.typeof import typeof


def compiled(**options: Any) -> Callable[[Any], Any]:
    """`njit` for a function that runs without Python's lock, kept on the disk for the next start.

    numba keeps it beside the code, or in the user's cache folder. Where neither can be written, as in a read-only
    installation, it is compiled at every start: about ten seconds.

    Args:
        options: further ones of `njit`.
    """

    def compile_lazily(function: Any) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder
            return njit(nogil=True, **options)(function)

    return compile_lazily


def load(function: Any, *arguments: Any) -> None:
    """Make a function of `compiled` ready for arguments of these types.

    Args:
        arguments: of the types to come; where nothing is cached, the function is called with them.
    """
    try:
        ready = _load_from_cache(function, tuple(typeof(argument) for argument in arguments))
    except (AttributeError, TypeError):
        ready = False
    if not ready:
        function(*arguments)


def _load_from_cache(function: Any, signature: tuple) -> bool:
    with global_compiler_lock:
        if signature not in function.overloads:
            context = function.targetctx
            rtsys.initialize(context)
            with function._cache._guard_against_spurious_io_errors(), _light_environments():
                compiled = function._cache._load_overload(signature, context)
                if compiled is not None:
                    function.add_overload(compiled)
        return signature in function.overloads


@contextmanager
def _light_environments() -> Iterator[None]:
    """Do not import the modules of numba's functions that ours have compiled into them.

    A cached function holds, for each of them, an environment: the variables of its module, which only code that goes
    back to Python reads. Our functions never do.
    """
    rebuild = environment._rebuild_env

    def rebuild_light(module: str, constants: list, name: str) -> environment.Environment:
        known = environment.lookup_environment(name)
        if known is not None:
            return known
        if not module.startswith("numba."):
            importlib.import_module(module)
        variables = vars(sys.modules[module]) if module in sys.modules else {"__name__": module}
        light = environment.Environment(variables)  # not remembered: what numba compiles later makes its own
        light.consts[:] = constants
        light.env_name = name
        return light

    environment._rebuild_env = rebuild_light
    try:
        yield
    finally:
        environment._rebuild_env = rebuild
