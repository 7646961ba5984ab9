"""What the machine says of memory."""

from pathlib import Path, PurePosixPath

from prefloop.loop.machine import (
    available_memory,
    cgroup_limits,
    cgroup_room,
    peak_memory,
    resident_memory,
    total_memory,
)

MIB = 2**20


def group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 0\n")


def test_every_cgroup_above_limits_and_its_page_cache_can_go(tmp_path: Path) -> None:
    group(tmp_path / "outer", str(100 * MIB), used=70 * MIB, cached=10 * MIB)
    group(tmp_path / "outer" / "inner", "max", used=60 * MIB, cached=0)

    assert list(cgroup_room(tmp_path, PurePosixPath("outer/inner"))) == [40 * MIB]


def test_a_cgroup_that_is_full_has_no_room(tmp_path: Path) -> None:
    group(tmp_path, str(MIB), used=2 * MIB, cached=0)

    assert list(cgroup_room(tmp_path, PurePosixPath())) == [0]


def test_this_process_holds_something_and_can_get_more() -> None:
    available = available_memory()

    assert 10 * MIB < resident_memory() <= peak_memory()
    assert available is None or available > 0


def test_what_there_could_ever_be_is_limited_by_cgroups_and_does_not_change(tmp_path: Path) -> None:
    group(tmp_path / "outer", str(100 * MIB), used=70 * MIB, cached=10 * MIB)
    group(tmp_path / "outer" / "inner", "max", used=60 * MIB, cached=0)
    assert list(cgroup_limits(tmp_path, PurePosixPath("outer/inner"))) == [100 * MIB]

    total, available = total_memory(), available_memory()
    assert total is None or available is None or total >= available
    assert total == total_memory()
