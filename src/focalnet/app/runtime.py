"""What runs a network in a browser: the WebAssembly build of ONNX Runtime, a package of npm.

The user's `npm` fetches it once. The archive's checksum is compared with the pinned one; the two files that are needed
of it, 14 MB, are kept in the cache folder (`$XDG_CACHE_HOME/focalnet`, else `~/.cache/focalnet`).
"""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from focalnet.errors import UserError
from focalnet.inputs.folders import cache_folder

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the archive, as npm writes it."""
FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
}
"""In the archive, and in the folder of the page: servers know .js better than .mjs."""
SECONDS = 600


def fetch_runtime() -> Path:
    """The folder with the files, which are fetched if they are not there yet.

    Raises:
        UserError: there is no npm, or it cannot fetch the package.
    """
    folder = cache_folder(f"onnxruntime-web-{VERSION}")
    if all((folder / name).is_file() for name in FILES.values()):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        archive = _pack(Path(place))
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != SHA512:
            raise UserError(f"npm gave another {PACKAGE} than the known one; ask whoever runs your npm registry.")
        whole = Path(place) / "whole"
        whole.mkdir()
        with tarfile.open(archive) as tar:
            for member, name in FILES.items():
                content = tar.extractfile(member)
                assert content is not None, member
                (whole / name).write_bytes(content.read())
        folder.mkdir(exist_ok=True)
        for name in FILES.values():
            os.replace(whole / name, folder / name)
    return folder


def _pack(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is needed once to fetch onnxruntime-web, which runs the network: install Node.js.")
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=folder)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm did not fetch {PACKAGE} in {SECONDS} seconds; check the network.") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        said = done.stderr.strip().partition("\n")[0] or "it does not say why"
        raise UserError(f"npm cannot fetch {PACKAGE} ({said}); check the network.")
    return archives[0]
