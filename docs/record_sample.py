"""Records the sample of commands in the README, with what they print, and its picture: `make recordings`.

The commands run in a new folder, with the README's first sweep file, and without a terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
#: What the sample draws, and where the README shows it.
PICTURE, IMAGE = "sample.png", Path(__file__).parent / "images" / "sample.png"
_SAMPLE = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_SWEEP = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


def sample(readme: str) -> str:
    """The block of commands with their output, as it stands in the README."""
    found = _SAMPLE.search(readme)
    if found is None:
        raise ValueError("the README has no console block")
    return found.group()


def run_sample(readme: str, folder: Path) -> str:
    """Run the README's commands in a folder; return their block with what they print now."""
    sweep = _SWEEP.search(readme)
    if sweep is None:
        raise ValueError("the README has no sweep file")
    (folder / "quick.yaml").write_text(sweep.group(1))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    lines = []
    for command in re.findall(r"^\$ (.*)$", sample(readme), flags=re.MULTILINE):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: failed:\n{done.stdout}")
        lines += [f"$ {command}", *(line.rstrip() for line in done.stdout.splitlines())]
    return "\n".join([*lines, ""])


def main() -> None:
    """Record the sample, in a folder that is removed afterwards."""
    readme = README.read_text()
    with tempfile.TemporaryDirectory() as name:
        shown = run_sample(readme, Path(name))
        shutil.copyfile(Path(name) / PICTURE, IMAGE)
    README.write_text(_SAMPLE.sub(lambda _: shown, readme, count=1))


if __name__ == "__main__":
    main()
