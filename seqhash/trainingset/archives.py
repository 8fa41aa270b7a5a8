"""Files in Debian packages, and in the archives of games inside them: zip (.pk3), WAD (Doom), .ocg
(OpenClonk)."""

import io
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

Members = Iterator[tuple[str, bytes]]  # path inside, content


class ArchiveError(ValueError):
    """An archive that cannot be read."""


def package_members(package: Path, *, folders: Collection[str]) -> Members:
    """The files of a .deb that are in some folders or below them, in the package's order.

    Needs dpkg-deb. Archives on the way to a folder are opened, and held in memory meanwhile.

    Args:
      folders: paths in the package without a leading slash, as
        ``usr/share/games/doom/freedoom1.wad``.

    Raises:
      ArchiveError: no dpkg-deb, not a package, or an archive in it is damaged.
    """
    if shutil.which("dpkg-deb") is None:
        raise ArchiveError(
            f"{package}: dpkg-deb is needed to unpack it (Debian, Ubuntu: it is there; "
            "elsewhere: the package dpkg)."
        )
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield from _members(tar, folders)
        except (tarfile.TarError, EOFError) as error:
            process.wait()
            said.seek(0)
            reason = said.read().decode(errors="replace").strip() or error
            raise ArchiveError(f"{package}: not a Debian package ({reason}).") from error


def _members(tar: tarfile.TarFile, folders: Collection[str]) -> Members:
    for entry in tar:
        path = entry.name.removeprefix("./")
        file = tar.extractfile(entry) if entry.isreg() else None
        if file is None:
            continue
        opener = OPENERS.get(Path(path).suffix)
        if opener and any(f"{folder}/".startswith(f"{path}/") for folder in folders):
            inner = ((f"{path}/{name}", content) for name, content in opener(file.read()))
            yield from (item for item in inner if _below(item[0], folders))
        elif _below(path, folders):
            yield path, file.read()


def _below(path: str, folders: Collection[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)


def zip_members(content: bytes) -> Members:
    """The files of a zip archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                if not name.endswith("/"):
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ArchiveError(f"A zip archive expected ({error}).") from error


def wad_members(content: bytes) -> Members:
    """The lumps of a WAD: a header of 12 bytes, then lumps, then a directory of 16 bytes a lump."""
    try:
        kind, count, directory = struct.unpack_from("<4sii", content)
        if kind not in (b"IWAD", b"PWAD"):
            raise ArchiveError(f"A WAD expected, got a file that begins {kind!r}.")
        for entry in range(count):
            begin, size, name = struct.unpack_from("<ii8s", content, directory + 16 * entry)
            yield name.rstrip(b"\0").decode("latin-1"), content[begin : begin + size]
    except struct.error as error:
        raise ArchiveError(f"A WAD is cut short ({error}).") from error


def group_members(content: bytes) -> Members:
    """The files of an OpenClonk group and of the groups in it: gzip with other first bytes."""
    try:
        plain = zlib.decompressobj(wbits=31).decompress(b"\x1f\x8b" + content[2:])
        yield from _group(plain, "")
    except (zlib.error, struct.error) as error:
        raise ArchiveError(f"An OpenClonk group expected ({error}).") from error


def _group(content: bytes, folder: str) -> Members:
    """A header of 204 scrambled bytes, then entries of 316 bytes, then the files."""
    header = bytearray(byte ^ 237 for byte in content[:204].ljust(204))
    for i in range(0, 202, 3):
        header[i], header[i + 2] = header[i + 2], header[i]
    if not header.startswith(b"RedWolf Design GrpFolder"):
        raise ArchiveError("An OpenClonk group expected, got another header.")
    (count,) = struct.unpack_from("<i", header, 36)
    files = 204 + 316 * count
    for begin in range(204, files, 316):
        name = content[begin : begin + 260].split(b"\0")[0].decode("latin-1")
        _, group, size, _, offset = struct.unpack_from("<5i", content, begin + 260)
        inside = content[files + offset : files + offset + size]
        if group:
            yield from _group(inside, f"{folder}{name}/")
        else:
            yield f"{folder}{name}", inside


OPENERS: dict[str, Callable[[bytes], Members]] = {
    ".pk3": zip_members,
    ".wad": wad_members,
    ".ocg": group_members,
}
