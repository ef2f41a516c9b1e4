"""GPUs beside TensorFlow: a lock that two processes really contend for, and what is said where there is no GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from batchopt.errors import DeviceError
from batchopt.machine.gpu import Meter, driver_version, hold, visible_index, why_no_gpu

HOLDS = """
import sys, time
from pathlib import Path
from batchopt.machine.gpu import hold

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
    assert (Meter(None).card(), Meter(None).joules(), Meter(None).max_power_w()) == (None, None, None)
    assert Meter(None).lacking() == "NVML does not answer: pip install 'batchopt[gpu]'"


def test_a_card_is_locked_by_its_number_where_the_driver_does_not_tell_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without `nvidia-ml-py` two studies keep out of each other's way all the same."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert (Meter(0).card(), Meter(1).name) == (None, "GPU 5")
    with hold(Meter(1).name, tmp_path), pytest.raises(DeviceError, match="GPU 5 is in use"):
        hold(Meter(1).name, tmp_path).__enter__()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65  Release Build", "580.65"),
    ],
)
def test_the_driver_is_known_by_its_own_file_too(text: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(f"{text}\nGCC version:  gcc version 12.2.0\n")
    assert driver_version(tmp_path / "version") == version
    assert driver_version(tmp_path / "missing") == ""


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
    most = Meter(0).max_power_w()
    assert most is None or 10 < most < 5000
    assert bool(Meter(0).lacking()) == (first is None)


@pytest.mark.parametrize("kind", ["link", "pipe", "other name"])
def test_a_lock_that_is_not_a_file_of_its_own_is_refused_and_nothing_is_written_through_it(
    kind: str, tmp_path: Path
) -> None:
    """Everybody may write in `/tmp`, and the name is known."""
    victim, lock = tmp_path / "thesis.tex", tmp_path / "batchopt-card.lock"
    victim.write_text("a thesis")
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        os.link(victim, lock)
    with (
        pytest.raises(DeviceError, match=r"batchopt-card.lock, the lock of card, .* Remove it") as refusal,
        hold("card", tmp_path),
    ):
        pass
    assert "\n" not in str(refusal.value)
    assert victim.read_text() == "a thesis"
