"""What the makers of data share: Debian packages unpacked but not installed, and the sums of what was written."""

import hashlib
import subprocess


def unpack(package, folder, deb=None):
    """The package's usr/share, unpacked into the folder; downloaded unless its file is given."""
    if not deb:
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        (deb,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", deb, folder / package], check=True)
    return folder / package / "usr" / "share"


def write_sums(output, paths):
    """SHA256SUMS of these files, in their order."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(output)}\n" for path in paths]
    (output / "SHA256SUMS").write_text("".join(lines))
