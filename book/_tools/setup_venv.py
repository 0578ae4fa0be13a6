"""Make `.venv` and install what the book needs; do nothing when that is done already.

Runs on the system's own Python, before anything is installed: standard library only, and no syntax newer than Python 3.6,
so that an old Python gets a message and not a syntax error.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / "installed.sha256"
OLDEST, NEWEST = (3, 10), (3, 13)


def version_problem(version):  # type: (tuple[int, ...]) -> str
    """Return why this Python cannot be used, or an empty string."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return ""
    found, oldest, newest = (".".join(str(part) for part in v[:2]) for v in (version, OLDEST, NEWEST))
    return "The book needs Python {} to {}; this is Python {}.\nName another one, for example: make book PYTHON=python3.12".format(
        oldest, newest, found
    )


def key():  # type: () -> str
    """Return a digest of all that decides what is installed; the folder counts, because scripts in .venv name it."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("requirements.txt", "pyproject.toml", "book/_tools/setup_venv.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def without_a_display(requirements):  # type: (str) -> str
    """Return the requirements with opencv-python-headless in the place of opencv-python."""
    return re.sub(r"(?m)^opencv-python(?=[^-\w]|$)", "opencv-python-headless", requirements)


def run(*command):  # type: (object) -> subprocess.CompletedProcess[str]
    """Run a command and keep what it prints."""
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)


def main():  # type: () -> None
    """Make `.venv` and install what is missing, or do nothing if all that decides it is unchanged."""
    python = VENV / "bin" / "python"
    if STAMP.is_file() and STAMP.read_text().strip() == key() and python.exists():
        return
    problem = version_problem(tuple(sys.version_info[:2]))
    if problem:
        sys.exit(problem)
    make_venv(python)
    install(python)
    STAMP.write_text(key() + "\n")


def make_venv(python):  # type: (Path) -> None
    """Make `.venv`, unless one stands there whose pip works and that was made in this folder."""
    if VENV.is_symlink():
        VENV.unlink()  # `venv --clear` would empty the folder that the link names, which is somebody else's
    place = VENV / "folder.txt"
    moved = place.is_file() and place.read_text() != str(ROOT)
    if python.exists() and not moved and run(python, "-m", "pip", "--version").returncode == 0:
        place.write_text(str(ROOT))
        return
    print("Making .venv with Python {}.{} ...".format(*sys.version_info[:2]), flush=True)
    made = run(sys.executable, "-m", "venv", "--clear", VENV)
    if made.returncode or run(python, "-m", "pip", "--version").returncode:
        advice = "On Debian or Ubuntu: sudo apt install python3-venv"
        sys.exit("{}\nThis Python cannot make a virtual environment.\n{}".format(made.stdout.strip(), advice))
    place.write_text(str(ROOT))


def install(python):  # type: (Path) -> None
    """Install the requirements, then the package itself in place."""
    print("Installing requirements.txt into .venv; the first time takes some minutes ...", flush=True)
    install_all(python, (ROOT / "requirements.txt").read_text(encoding="utf-8"))


def install_all(python, requirements):  # type: (Path, str) -> None
    """Install requirements given as text, then the package. OpenCV without its window code where the system lacks libGL."""
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    headless = run(*pip, "show", "--quiet", "opencv-python-headless").returncode == 0
    install_text(pip, without_a_display(requirements) if headless else requirements)
    if not headless and run(python, "-c", "import cv2").returncode:
        print("import cv2 fails here, as it does without libGL: taking opencv-python-headless instead.", flush=True)
        check(run(*pip, "uninstall", "--yes", "--quiet", "opencv-python"))
        install_text(pip, without_a_display(requirements))
    check(run(python, "-c", "import cv2, torch"))
    check(run(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT))


def install_text(pip, requirements):  # type: (list[object], str) -> None
    """Install requirements given as text."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(requirements, encoding="utf-8")
        check(run(*pip, "install", "--quiet", "--requirement", wanted))


def check(done):  # type: (subprocess.CompletedProcess[str]) -> None
    """Stop with the command's own words if it failed."""
    if done.returncode:
        sys.exit("{}\nThe command failed: {}".format(done.stdout.strip(), " ".join(done.args)))


if __name__ == "__main__":
    main()
