"""Container images without a registry: a skeleton whose programs are the host's, mounted read-only.

The images hold only folders and links; the admission policy of :mod:`rft_local.addons` mounts the host's ``/usr``, the
Python that runs this code and the checkout. So a pod runs exactly the project's own virtual environment, and the
manifests stay those that users apply.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rft_local.errors import ToolMissing

PAUSE = "rft.local/pause:1"
SKELETONS = ("rft.local/trainer:dev", "rft.local/operator:dev")
USER = 65_532
LINKS = ("bin", "lib", "lib64", "sbin")
"""Folders of the skeleton that are links into /usr."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def host_folders() -> list[Path]:
    """Return the host's folders that the skeleton needs, without those that lie inside another one."""
    checkout = Path(__file__).resolve().parents[2]
    wanted = [Path("/usr"), Path("/etc/ssl"), Path("/etc/alternatives")]
    base = Path(sys.base_prefix).absolute()
    wanted += [base.resolve(), base, *_on_the_way_to_python(), Path(sys.prefix).absolute(), checkout]
    in_skeleton = [Path("/"), *(Path("/", name) for name in LINKS)]
    there = [folder for folder in dict.fromkeys(wanted) if folder.is_dir() and folder not in in_skeleton]
    return [folder for folder in there if not any(_lies_in(folder, other) for other in there)]


def _on_the_way_to_python() -> list[Path]:
    """Return the folders of the programs that the environment's ``python`` is a link to, link by link."""
    program = Path(sys.prefix).absolute() / "bin" / "python"
    folders = []
    while program.is_symlink():
        program = Path(os.path.normpath(program.parent / program.readlink()))
        folders.append(program.parent)
    return folders


def _lies_in(folder: Path, other: Path) -> bool:
    """Return whether a folder is there once another one is mounted: a link that leads out of it is not."""
    return other in folder.parents and other.resolve() in folder.resolve().parents


def write_images(folder: Path) -> list[Path]:
    """Write all images as docker archives; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.prefix).absolute()}/bin:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}  # noqa: S108 - in the image
    archives = [folder / "pause.tar"]
    busybox = ["/bin/busybox", "sleep", "2000000000"]
    _write(archives[0], PAUSE, _pause, command=busybox, environment={"PATH": "/bin"}, user="0:0")
    for name in SKELETONS:
        archive = folder / f"{name.split('/')[1].split(':')[0]}.tar"
        _write(archive, name, _skeleton, command=["python"], environment=environment, user=f"{USER}:{USER}")
        archives.append(archive)
    return archives


def _pause(layer: tarfile.TarFile) -> None:
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        msg = "busybox is missing: apt-get install busybox-static"
        raise ToolMissing(msg)
    for name in ("bin", "etc", "proc", "sys", "dev"):
        _folder(layer, name)
    _file(layer, "bin/busybox", Path(busybox).read_bytes(), mode=0o755)


def _skeleton(layer: tarfile.TarFile) -> None:
    for name in ("etc", "usr", "proc", "sys", "dev", "root", "var", "run", "opt", "home", "srv", "rft"):
        _folder(layer, name)
    for name in ("etc/ssl", "etc/alternatives", "rft/config", "rft/data", "rft/run", "rft/claims", "rft/token"):
        _folder(layer, name)
    _folder(layer, "tmp", mode=0o1777)
    for name in LINKS:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
        layer.addfile(link)
    _file(layer, "etc/passwd", f"root:x:0:0::/root:/bin/sh\nrft:x:{USER}:{USER}::/tmp:/bin/sh\n".encode())
    _file(layer, "etc/group", f"root:x:0:\nrft:x:{USER}:\n".encode())
    _file(layer, "etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")


def _folder(layer: tarfile.TarFile, name: str, *, mode: int = 0o755) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    layer.addfile(info)


def _file(layer: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    layer.addfile(info, io.BytesIO(data))


def _write(
    archive: Path,
    reference: str,
    fill: Callable[[tarfile.TarFile], None],
    *,
    command: list[str],
    environment: Mapping[str, str],
    user: str,
) -> None:
    """Write a docker archive with one layer (the format of ``docker save``)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        fill(layer)
    data = buffer.getvalue()
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": command, "User": user, "Env": [f"{key}={value}" for key, value in environment.items()]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
        "history": [],
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as out:
        _file(out, "config.json", json.dumps(config).encode())
        _file(out, "layer.tar", data)
        _file(out, "manifest.json", json.dumps(manifest).encode())
