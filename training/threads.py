"""How many threads the networks may use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded_networks() -> Iterator[None]:
    """Run small batches on one thread.

    While environments step, a second network thread gains nothing and its spinning takes a core from physics.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
