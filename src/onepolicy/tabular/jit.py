"""Machine code: `@jit` compiles a function on its first call and keeps the code on disk, for this state of the package.

numba renews what it kept when the function's own file changes, not when a function that it calls does: an edited or
upgraded package might go on with old code. Here what is kept counts for these very sources, all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba


def jit(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """The function compiled by numba, without the interpreter's lock; a decorator, with numba's options or bare.

    Where nothing can be kept (no folder to write in, or a numba that keeps things otherwise), it is compiled anew in
    each process.
    """
    if function is None:
        return lambda found: jit(found, **options)
    options = {"nogil": True, **options}
    try:
        made = numba.njit(cache=True, **options)(function)
        if not hasattr(made._cache._cache_file, "_source_stamp"):
            raise AttributeError("_source_stamp")
        made._cache._cache_file._source_stamp = revision()
    except (RuntimeError, AttributeError):
        return numba.njit(**options)(function)
    return made


@cache
def revision() -> str:
    """A hash of this package's sources."""
    folder, found = Path(__file__).parent, sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()
