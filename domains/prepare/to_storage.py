"""`prepare` into a folder on a storage (s3://, ...): made here, sent when it is whole. What leads back to patients never leaves this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from domains.base import Domain
from domains.errors import ConfigError, StorageError
from domains.prepare import output
from domains.prepare.ingest import PrepareResult, Progress, prepare
from domains.remote.place import Place, Url, to_place
from domains.remote.storage import Entry
from domains.remote.transfer import download, listed, upload
from domains.store.manifest import INFO

BEGUN, SENT = "upload.json", "uploaded.jsonl"  # in the private folder
FRAMES = re.compile(r"frames/[a-z2-7]{2}/[a-z2-7]{16}\.mjpeg")


def prepare_to(
    source: str | Place,
    url: Url,
    local: Path,
    domain: Domain,
    *,
    overwrite: bool = False,
    update: bool = False,
    sending: Progress | None = None,
    **settings: Any,
) -> PrepareResult:
    """Prepare `source` into the local folder `local`, and send it to `url`, which then holds the same and nothing else.

    `<local>.private` stays here. A call that was killed is taken up by the next one, wherever it was. update: where `local` was removed
    meanwhile, what lies at `url` is fetched back first. sending(done, total): called after every object sent. settings: those of
    `domains.prepare.ingest.prepare`, which says what they and the other arguments mean.

    Raises as that, UnreachableError where the storage does not answer, ConfigError where what lies at `url` must not be touched.
    """
    source = to_place(source)
    if isinstance(source, Url) and (source.is_relative_to(url) or url.is_relative_to(source)):
        raise ConfigError("source and output lie within each other", where=url, do="Choose another --out")
    begun = _begun(local, url)
    there = listed(url)
    check_target(url, there, overwrite or update or begun)
    if local.exists() and not (overwrite or update or begun):
        do = "Bring both up to date: --update, replace them: --overwrite, or name another local folder: --local FOLDER"
        raise ConfigError(f"{local}, from which it would be sent, exists already", where=url, do=do)
    try:
        private = output.private_folder(local)
        if update and INFO in there and not local.exists():
            _fetch_back(url, local)
        update = update or (begun and (local / INFO).is_file())
        overwrite = overwrite and not begun
        result = prepare(source, local, domain, overwrite=overwrite, update=update, **settings)
        _write_begun(private / BEGUN, url)
        upload(local, url, INFO, private / SENT, sending)
        (private / BEGUN).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot be read or written ({error.strerror})", where=local, do=output.GO_ON) from None
    return result


def check_target(url: Url, there: dict[str, Entry], allowed: bool) -> None:
    """Raises ConfigError where sending to `url` would destroy something. allowed: a prepared folder may be replaced."""
    foreign = [name for name in there if name not in output.OURS and not FRAMES.fullmatch(name)]
    if foreign:
        what = f"holds {len(foreign)} objects that are not of a prepared folder"
        raise ConfigError(what, where=url, do="Choose another --out")
    if INFO in there and not allowed:
        do = "Choose another --out, bring it up to date: --update, or replace it: --overwrite"
        raise ConfigError("the output is not empty", where=url, do=do)


def _begun(local: Path, url: Url) -> bool:
    """Whether an earlier call prepared for this URL, and began to send."""
    try:
        told = json.loads((output.private_folder(local) / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(told == {"url": str(url)})


def _write_begun(path: Path, url: Url) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps({"url": str(url)}) + "\n")


def _fetch_back(url: Url, local: Path) -> None:
    """What was sent, as the local folder that it was."""
    draft = local.with_name(local.name + ".fetched")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        download(url, draft)
        draft.rename(local)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
