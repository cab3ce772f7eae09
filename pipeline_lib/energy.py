"""The energy that this machine uses, as far as it can be read: processors and memory (RAPL), NVIDIA GPUs (NVML).

The counters cover all processes of the machine. RAPL is read from Linux's `/sys/class/powercap`, which on many machines
only root may; NVML counts energy on GPUs since Volta.
"""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")
_SAMPLE_SECONDS = 60.0
_MICROJOULES, _MILLIJOULES = 1e-6, 1e-3


class EnergyMeter:
    """Measures the energy that the machine uses from now on.

    RAPL's counters wrap around after an hour or less, so a thread reads them every minute.
    """

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        zones = [folder for folder in sorted(powercap.glob("*-rapl:*")) if _is_counted(folder)]
        self._last = {folder: value for folder in zones if (value := _read(folder, "energy_uj")) is not None}
        self._processor_joules = 0.0
        self._gpu_start = _gpu_joules()
        self._lock = threading.Lock()
        if self._last:
            threading.Thread(target=self._sample_regularly, name="energy", daemon=True).start()

    def joules(self) -> float | None:
        """Return the energy used since this meter was made, in joules; None where no counter can be read."""
        self._sample()
        gpu = _gpu_joules()
        measured = [self._processor_joules] if self._last else []
        if gpu is not None and self._gpu_start is not None:
            measured.append(gpu - self._gpu_start)
        return sum(measured) if measured else None

    def _sample_regularly(self) -> None:
        while True:
            time.sleep(_SAMPLE_SECONDS)
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            for folder, before in self._last.items():
                now = _read(folder, "energy_uj")
                if now is None:
                    continue
                used = now - before if now >= before else now - before + (_read(folder, "max_energy_range_uj") or 0)
                self._processor_joules += used * _MICROJOULES
                self._last[folder] = now


def _is_counted(zone: Path) -> bool:
    """Return whether a zone is a package (package-0, package-0-die-1) or memory (dram), which no package contains.

    The others would be counted twice: core and uncore are parts of a package, psys is the platform with all packages.
    """
    try:
        name = (zone / "name").read_text().strip()
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


def _read(folder: Path, name: str) -> int | None:
    try:
        return int((folder / name).read_text())
    except (OSError, ValueError):
        return None


def _gpu_joules() -> float | None:
    """Return what all NVIDIA GPUs have used since their driver was loaded, in joules; None where that is unknown."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2():
        return None
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return None
        used = []
        for index in range(count.value):
            device, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
                continue
            if not nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)):
                used.append(energy.value * _MILLIJOULES)
        return sum(used) if used else None
    finally:
        nvml.nvmlShutdown()
