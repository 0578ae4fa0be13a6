"""The book's page on data sources, made from the one table in `divcolor_lib.download`: python -m book._tools.sources."""

from __future__ import annotations

from pathlib import Path

from divcolor_lib.download import SOURCES, Copy, Source
from divcolor_lib.errors import whole_file

PAGE = Path(__file__).resolve().parents[1] / "data_sources.md"

TOP = """\
# Data sources

<!-- Made by `python -m book._tools.sources` from the table in divcolor_lib/download.py. Change the table, then run it again. -->

The chapters run without any download: their portraits are drawn by a program, and what they need ships with the library.
Only training on real faces, and comparing with published weights, needs files from elsewhere. Nothing is fetched unless you ask for it:

```bash
python -m divcolor_lib download                     # what there is, and what is here already
python -m divcolor_lib download lfw                 # the faces, in the best alignment that can be had
python -m divcolor_lib download zhang --to my-data  # one file, into a folder of your choice
```

In Python, `divcolor_lib.download.lfw()` returns the folder of faces, and `divcolor_lib.download.fetch(name)` any file of the tables below.

Files go to the folder that the environment variable `DIVCOLOR_DATA` names, or else to `divcolor` in your folder for caches.
On Linux that is `~/.cache/divcolor`. On Colab it is gone when the machine is: to keep files, mount Google Drive and set
`DIVCOLOR_DATA` to a folder in it, such as `/content/drive/MyDrive/divcolor`.

## What is checked

Every file is compared with the size and the hash that its publisher states, after the download and again each time it is asked for.
A *hash* is a long number computed from all bytes of a file; a file with one wrong byte has another one.
*SHA-256* and the older *MD5* are two ways to compute it.

For some files nobody published a hash. The first download of such a file cannot be compared with anything, and the program says so.
It shows the SHA-256 of what came and writes it to a small file beside it, `NAME.sha256.json`. From then on that hash is required.
If a class works with such a file, compare the number with your neighbor's.

Archives are unpacked with care: links, absolute paths, paths that lead out of the folder, and archives that swell without end are refused.

## When a download fails

- **It broke off.** Run the same command again. It goes on where it stopped, if the server allows that.
- **One address fails**: 403, 404, silence, a web page instead of the file, a wrong hash. The next one in the table is tried
  without a question. The message at the end names each address and its reason.
- **All addresses fail.** Fetch the file by hand: a browser often succeeds where a program is turned away, and so does another
  network. Then pass the file. It is checked like any other, and copied to the folder of data:
  `python -m divcolor_lib download lfw --from lfw-deepfunneled.zip`
- **You have the faces already.** Commands that train and evaluate take the folder as it is: `--data FOLDER`.
- **Google Drive says that too many people fetched the file.** Wait a day, or open its address in a browser where you are signed in.
- **Nothing may use the network.** Set `DIVCOLOR_OFFLINE=1`. What is here is used, and what is not here is an error that says so.
- **Two notebooks ask for one file.** One fetches it, the other waits. When the one that fetches is killed, the other goes on.

## What there is
"""


def render() -> str:
    """Return the page, in plain Markdown."""
    return "\n".join([TOP, *map(_section, SOURCES)])


def _section(source: Source) -> str:
    rows = "\n".join(f"| {number} | {_place(copy)} | {_known(copy)} |" for number, copy in enumerate(source.copies, start=1))
    return f"""\
### {source.title}

`{source.name}`: {source.use}.

| | where, in the order of trying | what is known of it before |
|---|---|---|
{rows}

- Size: {source.about}.
- License: {source.license}
- Cite: {source.citation}.
"""


def _place(copy: Copy) -> str:
    kind = "Google Drive, " if copy.drive else ""
    return f"{kind}[{copy.file}]({copy.address})"


def _known(copy: Copy) -> str:
    facts = [f"{copy.size:,} bytes"] if copy.size is not None else []
    if copy.sha256:
        facts.append(f"SHA-256 {'' if len(copy.sha256) == 64 else 'begins with '}`{copy.sha256}`")
    if copy.md5:
        facts.append(f"MD5 `{copy.md5}`")
    return ", ".join(facts) or "nothing"


def main() -> None:
    """Write the page."""
    with whole_file(PAGE) as temporary:
        temporary.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
