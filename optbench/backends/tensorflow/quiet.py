"""Keep off the screen what TensorFlow's C++ libraries print before their log level is read."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back what is written to standard error; after an exception it is shown."""
    try:
        screen = sys.__stderr__.fileno()  # type: ignore[union-attr]
        kept = os.dup(screen)
    except (AttributeError, OSError, ValueError):  # there is no such stream
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), screen)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, screen)
            os.close(kept)
