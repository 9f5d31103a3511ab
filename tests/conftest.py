"""One thread: the tensors of the tests are tiny, and threads that wait for each other cost more than they bring."""

import signal
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and what they begin too
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # under nohup, whose deafness what they begin would share


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What checks of data keep lies apart from what the user of this machine has; others find their caches."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, folder in (("MPLCONFIGDIR", "matplotlib"), ("HF_HOME", "huggingface"), ("TORCH_HOME", "torch")):
            patch.setenv(variable, str(Path.home() / ".cache" / folder))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
