"""GPUs beside TensorFlow: a lock that two processes really contend for, and what is said where there is no GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optimizer.errors import DeviceError
from optimizer.training.gpu import Meter, hold, visible_index, why_no_gpu

HOLDS = """
import sys, time
from pathlib import Path
from optimizer.training.gpu import hold

with hold("GPU-1", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_card_is_one_studys_until_its_process_ends(tmp_path: Path) -> None:
    """Signal 9 included: the kernel lets go."""
    other = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(DeviceError, match=rf"GPU-1 is in use by another study \(process {other.pid}\).*--share"):
        hold("GPU-1", tmp_path).__enter__()
    with hold("GPU-2", tmp_path):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with hold("GPU-1", tmp_path):
        assert (tmp_path / "batchopt-GPU-1.lock").read_text() == str(os.getpid())


def test_a_gpu_without_its_libraries_is_told_from_no_gpu(tmp_path: Path) -> None:
    assert why_no_gpu((), tmp_path) == "there is no NVIDIA GPU on this machine, or no driver for it"
    (tmp_path / "nvidia0").touch()
    said = why_no_gpu(("libc.so.6", "libcudnn.so.999"), tmp_path)
    assert said == "there is a GPU, but TensorFlow lacks libcudnn.so.999: pip install 'batchopt[gpu]'"
    assert "driver" in why_no_gpu(("libc.so.6",), tmp_path)


def test_the_cards_that_a_process_may_see_keep_the_drivers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_index(1) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    assert (visible_index(0), visible_index(1)) == (3, "GPU-abc")


def test_without_a_gpu_a_meter_says_nothing() -> None:
    assert (Meter(None).card(), Meter(None).joules()) == (None, None)


@pytest.mark.gpu
def test_the_driver_describes_its_card() -> None:
    pytest.importorskip("pynvml")
    card = Meter(0).card()
    assert card is not None
    assert 0 < card.free_bytes <= card.memory_bytes
    assert card.driver
    assert card.cuda
    first, second = Meter(0).joules(), Meter(0).joules()
    assert first is None or (second is not None and second >= first)
