"""Strict settings, and the domains that are declared with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from domains.base import Domain, domain_names, domain_yaml, load_domain
from domains.errors import ConfigError
from domains.schema import Strict, keys_of, nearest, parse, read_yaml, submodel


class Inner(Strict):
    rate: float = Field(1.0, gt=0)


class Outer(Strict):
    inner: Inner = Inner()
    perhaps: Inner | None = None
    count: int = 2


def test_keys_of_and_submodels() -> None:
    assert list(keys_of(Outer)) == ["inner", "inner.rate", "perhaps", "perhaps.rate", "count"]
    assert submodel(Inner | None) is Inner
    assert submodel(int) is None
    assert submodel(dict[str, int]) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cuont": 3}, "here: unknown key 'cuont'. Did you mean 'count'?"),
        ({"inner": {"raet": 3}}, "here: unknown key 'inner.raet'. Did you mean 'inner.rate'?"),
        ({"inner": {"rate": -1}}, "here: 'inner.rate': input should be greater than 0 (got -1)"),
        ({"count": "two", "inner": {"rate": -1}}, "(and 1 more)"),
    ],
)
def test_a_mistake_is_one_line(values: dict, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(Outer, values, "here")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().count = 3  # type: ignore[misc]


def test_nearest_lists_all_where_nothing_is_close() -> None:
    assert nearest("zzz", ["a", "b"]) == "Known: a, b."
    assert nearest("rate", ["inner.rate", "count"]) == "Did you mean 'inner.rate'?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list\n", "must hold 'key: value' lines"),
        ("a: [1\nb: 2\n", "not valid YAML"),
        ("", "must hold 'key: value' lines"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_yaml_that_is_none(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert said in str(error.value)
    assert "bad.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_that_runs_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "bad.yaml"
    path.write_text(f"a: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ConfigError):
        read_yaml(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", domain_names())
def test_domains_that_ship_are_whole(name: str) -> None:
    domain = load_domain(name)
    assert domain.name == name
    assert domain.tasks
    layer = domain.run_layer()
    assert layer["clip"]["size"] <= domain.store.size
    assert "# Run it:" in domain_yaml(name).read_text(encoding="utf-8")


def test_a_domain_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(
        "name: ours\ntitle: Ours\nclip: {frames: 8}\ntasks:\n  grade: {kind: classification, column: grade}\n"
    )
    ours = load_domain(str(path))
    assert isinstance(ours, Domain)
    assert ours.run_layer()["clip"] == {"frames": 8}, "what it does not say is left to the layers below"
    assert ours.task("grade").kind == "classification"
    with pytest.raises(ConfigError, match=r"has no task 'grad'\. Did you mean 'grade'"):
        ours.task("grad")
    path.write_text("name: ours\ntitle: Ours\nclips: {frames: 8}\n")
    with pytest.raises(ConfigError, match=r"ours.yaml: unknown key 'clips'. Did you mean 'clip'"):
        load_domain(str(path))
    with pytest.raises(ConfigError, match="A file of your own"):
        load_domain("ecco")
