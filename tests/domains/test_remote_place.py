import subprocess
import sys
from pathlib import Path

import pytest

from domains.errors import ConfigError
from domains.remote.place import Url, is_url, to_place


def test_paths_stay_paths_and_urls_are_told_apart():
    assert to_place("studies/a") == Path("studies/a")
    assert to_place(r"C:\studies") == Path(r"C:\studies")
    assert to_place(Path("x")) == Path("x")
    assert not is_url("s3:/bucket")
    assert is_url("s3://bucket")
    url = to_place("S3://Bucket/echo//2024/")
    assert isinstance(url, Url)
    assert (str(url), url.scheme, url.host, url.path, url.name) == (
        "s3://Bucket/echo//2024",
        "s3",
        "Bucket",
        "echo//2024",
        "2024",
    )


def test_parts_of_a_url():
    bucket, file = to_place("s3://bucket"), to_place("file:///data/x.dcm")
    assert isinstance(bucket, Url)
    assert isinstance(file, Url)
    assert (bucket.name, bucket.path, bucket.parent) == ("bucket", "", bucket)
    assert (file.host, file.path, file.name, str(file.parent)) == ("", "data/x.dcm", "x.dcm", "file:///data")
    assert (bucket / "a/b").is_relative_to(bucket)
    assert not Url("s3://bucket2").is_relative_to(bucket)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:SECRETWORD@bucket/x",
        "https://joe:SECRETWORD@host/x",
        "https://host/x?X-Amz-Signature=SECRETWORD",
        "simplecache::https://a:SECRETWORD@host/x",
        "filecache://SECRETWORD::s3://x/y",
    ],
)
def test_secrets_and_chains_are_refused_and_not_repeated(text: str):
    with pytest.raises(ConfigError) as refused:
        to_place(text)
    assert "SECRETWORD" not in str(refused.value)


@pytest.mark.parametrize("text", ["s3://", "s3:///"])
def test_a_url_that_names_nothing_is_refused(text: str):
    with pytest.raises(ConfigError, match="names no bucket"):
        to_place(text)


@pytest.mark.parametrize("text", ["s3://bucket/a/../b", "s3://bucket/..", "file:///data/./x"])
def test_a_url_goes_down_only(text: str):
    with pytest.raises(ConfigError, match="Write it out"):
        to_place(text)


def test_nothing_loads_fsspec_before_a_url_is_opened():
    code = "import sys, domains.prepare.ingest, domains.store.prepared, vfm_cli.options; assert 'fsspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_one_module_alone_imports_fsspec():
    root = Path(__file__).parents[2]
    found = [
        path.relative_to(root).as_posix()
        for top in ("domains", "recipes", "vfm_cli")
        for path in (root / top).rglob("*.py")
        if any(
            line.split()[:2] in (["import", "fsspec"], ["from", "fsspec"])
            for line in path.read_text().splitlines()
            if line.split()
        )
    ]
    assert found == ["domains/remote/storage.py"]
