"""One machine with several devices: a process for each, which encodes a share of its own.

In: the command's own words, devices. Out: shares in the store. Nothing is gathered: each process
writes its own segments, and the one that began them finishes the collection.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from era_cache.cli.common import note
from era_cache.cli.share_options import without_options
from era_cache.errors import EraError, InputError

__all__ = ["devices_of", "encode_on_devices"]

_STOP_SECONDS = 30.0


def devices_of(options: dict[str, Any]) -> list[str]:
    """The devices to encode on, none where there is one or the default.

    Raises:
        InputError: ``all`` where there is no GPU.
        UsageError: several, and something that says already who encodes.
    """
    given = options["device"] or ""
    if given == "all":
        from era_cache.encode.load_model import cuda_devices

        devices = cuda_devices()
        if not devices:
            raise InputError("--device all: torch sees no CUDA device here. Leave --device out.")
    elif "," in given:
        devices = given.split(",")
    else:
        return []
    if not all(devices):
        raise InputError(f"--device {given}: a name is empty; give cuda:0,cuda:1 or all.")
    for name in ("shard", "finish", "max_cost"):
        if options[name]:
            word = name.replace("_", "-")
            raise click.UsageError(f"--{word} is for one process: give one --device.")
    if options["engine"] != "local":
        raise click.UsageError("--engine ray brings its own workers: leave --device out.")
    return devices


def encode_on_devices(devices: Sequence[str]) -> None:
    """Run this very command once for each device, on its share, and wait for all of them.

    Raises:
        EraError: one failed; its own message is above. What was committed stays.
    """
    words = without_options(sys.argv[1:], {"--device", "--bm25-language"})
    words = [word for word in words if word not in ("--json", "--bm25", "--quiet")]
    running: list[subprocess.Popen[bytes]] = []
    note(f"Encoding on {', '.join(devices)}: a process for each; the first shows how far it is.")
    try:
        for number, device in enumerate(devices, start=1):
            own = ["--device", device, "--shard", f"{number}/{len(devices)}"]
            own += ["--quiet"] if number > 1 else []
            command = [sys.executable, "-P", "-m", "era_cache", "embed", *words, *own]
            started = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
            running.append(started)
        codes = [one.wait() for one in running]
    finally:
        # Ctrl-C reaches them, too, and they commit what they have.
        for one in running:
            if one.poll() is None:
                one.terminate()
        for one in running:
            try:
                one.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                one.kill()
    failed = [f"{device} ({code})" for device, code in zip(devices, codes, strict=True) if code]
    if failed:
        raise EraError(
            f"Encoding on {', '.join(failed)} ended early (exit code in brackets); what it said is "
            "above. What is stored stays: run the same command again."
        )
