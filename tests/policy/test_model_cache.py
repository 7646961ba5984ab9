"""Directories that are built once."""

import multiprocessing
from pathlib import Path

import pytest

from prefloop.errors import ModelError
from prefloop.policy.model_cache import built_once, cache_directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(directory: Path) -> None:
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_text("weights")


def never(directory: Path) -> None:
    raise AssertionError(f"built a second time in {directory}")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("PREFLOOP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "prefloop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "prefloop"


def test_a_directory_is_built_once() -> None:
    first = built_once("m", fill)
    assert built_once("m", never) == first


def test_a_build_that_was_cut_short_is_not_used(cache: Path) -> None:
    def cut_short(directory: Path) -> None:
        fill(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built_once("m", cut_short)
    assert built_once("m", fill) == built_once("m", never)
    assert sorted(path.name for path in cache.iterdir()) == ["m", "m.json", "m.lock"]


def test_a_directory_without_its_record_is_not_used(cache: Path) -> None:
    built_once("m", fill)
    (cache / "m.json").unlink()
    (cache / "m" / "model.safetensors").write_text("half")
    directory = built_once("m", fill).directory
    assert (directory / "model.safetensors").read_text() == "weights"


@pytest.mark.parametrize("damage", [lambda file: file.write_text("half"), lambda file: file.unlink()])
def test_a_damaged_directory_is_built_again(damage) -> None:
    before = built_once("m", fill)
    damage(before.directory / "model.safetensors")
    assert built_once("m", fill) == before
    assert (before.directory / "model.safetensors").read_text() == "weights"


def fill_slowly(directory: Path) -> None:
    """Leaves a trace outside, and is slow enough for two processes to meet."""
    with (directory.parent.parent / "builds").open("a") as builds:
        builds.write("x")
    fill(directory)
    multiprocessing.get_context("fork").Event().wait(0.2)


def build_in_a_process() -> None:
    assert (built_once("m", fill_slowly).directory / "model.safetensors").read_text() == "weights"


def test_processes_that_meet_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_in_a_process) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert (tmp_path / "builds").read_text() == "x"


def test_a_cache_that_cannot_be_written_is_said(cache: Path) -> None:
    cache.write_text("a file in the way")
    with pytest.raises(ModelError) as caught:
        built_once("m", fill)
    assert str(caught.value) == (
        f"{cache}/m: cannot be written: File exists. Set PREFLOOP_CACHE to a directory with room."
    )
