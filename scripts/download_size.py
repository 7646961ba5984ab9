"""Print what an installation downloads: `download_size.py FILE...`, each pip's `--report` or uv's `pylock.toml`."""

import json
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen


def urls(file: Path) -> Iterator[str]:
    """The files that would be fetched; the ones that already lie on this machine are left out."""
    if file.suffix == ".json":
        found = [item["download_info"]["url"] for item in json.loads(file.read_text())["install"]]
    else:
        packages = tomllib.loads(file.read_text()).get("packages", [])
        found = [(package.get("wheels") or [package.get("sdist", {})])[0].get("url", "") for package in packages]
    return (url for url in found if url.startswith(("http:", "https:")))


def size(url: str) -> int | None:
    """Bytes of the file behind `url`, if its server says."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=5) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def main() -> None:
    """Ask for all sizes at once and print their sum."""
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(size, (url for file in sys.argv[1:] for url in urls(Path(file)))))
    known = [number for number in sizes if number is not None]
    unknown = f", and {len(sizes) - len(known)} of unknown size" if len(known) < len(sizes) else ""
    print(f"install: downloading at most {sum(known) / 1e6:,.0f} MB in {len(known)} files{unknown}", flush=True)


if __name__ == "__main__":
    main()
