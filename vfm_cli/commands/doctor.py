"""`vfm doctor`: what this installation can do, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from vfm_cli.console import emit_json, table
from vfm_cli.options import json_option

PACKAGES = (
    "vfm",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "pydicom",
    "opencv-python-headless",
    "av",
    "python-gdcm",
    "pyarrow",
)


@click.command()
@json_option
def command(as_json: bool) -> None:
    """What this installation can do, and what is missing. Exit code 1 where something needed is."""
    found = inspect()
    if as_json:
        emit_json(found)
    else:
        table(["", "", ""], [[name, "ok" if good else "MISSING", words] for name, good, words in found["checks"]])
    if not all(good for _, good, _ in found["checks"]):
        raise click.exceptions.Exit(1)


def inspect() -> dict[str, Any]:
    """Every check as (name, good, words)."""
    import torch

    from domains.machine import cores
    from domains.media import decoders
    from domains.prepare.privacy import key_path

    checks: list[tuple[str, bool, str]] = [("python", sys.version_info >= (3, 11), platform.python_version())]
    for name in PACKAGES:
        try:
            checks.append((name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            checks.append((name, False, f"install it: pip install {name}"))
    for decoder in decoders():
        words = "decoder" if decoder.available else f"install it: pip install {decoder.install}"
        checks.append((decoder.name, decoder.available, words))
    try:
        checks.append(("s3:// storage", True, f"s3fs {metadata.version('s3fs')}"))
    except metadata.PackageNotFoundError:
        checks.append(("s3:// storage", True, 'not installed; for recordings on S3: pip install "vfm[s3]"'))
    try:
        checks.append(("--slurm", True, f"submitit {metadata.version('submitit')}"))
    except metadata.PackageNotFoundError:
        checks.append(("--slurm", True, 'not installed; to submit Slurm jobs: pip install "vfm[slurm]"'))
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if cuda else f"none; training runs on {cores()} CPU cores"
    checks.append(("GPU", True, device))
    try:
        checks.append(("disk", True, f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here"))
    except OSError as error:
        checks.append(("disk", False, str(error.strerror)))
    checks.append(("network", True, "off (HF_HUB_OFFLINE=1)" if os.environ.get("HF_HUB_OFFLINE") == "1" else "on"))
    key = key_path()
    checks.append(("pseudonym key", True, str(key) if key.exists() else f"none yet; 'vfm data prepare' makes {key}"))
    writable = os.access(Path.home(), os.W_OK) if Path.home().exists() else False
    checks.append(("home folder", True, "writable" if writable else "not writable: set HOME, or give --key FILE"))
    return {"checks": checks}
