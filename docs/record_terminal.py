"""Records the pictures of terminal sessions in these pages: `make recordings`.

Real commands run in a pseudo-terminal of 80 columns, in a new folder; what the terminal would show becomes an SVG. A
session goes through its commands one after the other. The last one can be shown in mid-air.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COLUMNS = 80
#: As dark as a terminal, with colours that are told apart by lightness too (those of Okabe and Ito).
THEME = TerminalTheme(
    (24, 26, 27),
    (222, 222, 222),
    [
        (24, 26, 27),
        (213, 94, 0),
        (0, 158, 115),
        (230, 159, 0),
        (86, 180, 233),
        (204, 121, 167),
        (86, 180, 233),
        (222, 222, 222),
    ],
)
#: rich's own, without the fonts that it would load from the network.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""
SWEEP = """\
name: quick
repetitions: 10
cubes:
  - dataset: [breast_cancer, digits, diabetes]
    shape: [rectangle, trapezoid]
    size: [512, 4096, 32]
    depth: [2, 4]
    learning_rate: [0.001]
    epochs: [200]
"""


class Session(NamedTuple):
    """Commands that are shown one below the other; the last one in mid-air, if ``is_cut``."""

    file: str
    title: str
    commands: tuple[str, ...]
    is_cut: bool = False


#: All in one folder, in this order: the second looks at what the first one trained.
SESSIONS = (
    Session(
        "terminal-training.svg",
        "A campaign is planned and trained",
        (
            "butter-etl plan store --spec quick.yaml --workers 2",
            "butter-etl train store --spec quick.yaml --workers 2",
        ),
        is_cut=True,
    ),
    Session(
        "terminal-status.svg",
        "What a store holds, summaries, and a picture",
        (
            "butter-etl status store --sweep quick",
            "butter-etl summarize store",
            "butter-etl plot store map.pdf --where 'dataset=digits' --kind map",
        ),
    ),
)


class Screen:
    """What a terminal shows after some output: enough of one for lines, colours and progress bars."""

    _PARTS = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\][^\x07]*\x07|([\r\n\b])|([^\x1b\r\n\b]+)|(\x1b)")

    def __init__(self) -> None:
        self._lines: list[list[tuple[str, str]]] = [[]]
        self._row = self._column = 0
        self._style = ""

    def feed(self, text: str) -> None:
        """Take in what a command wrote."""
        for codes, kind, control, letters, _ in self._PARTS.findall(text):
            if kind:
                self._escape(codes, kind)
            elif control:
                self._move(control)
            else:
                for letter in letters:
                    self._put(letter)

    def ansi(self) -> str:
        """The screen as lines of text with colours, without empty lines at its end."""
        lines = []
        for line in self._lines:
            shown, last = "", ""
            for letter, style in line:
                shown += letter if style == last else f"\x1b[0m{style}{letter}"
                last = style
            lines.append(f"{shown}\x1b[0m".rstrip())
        return "\n".join(lines).rstrip("\n\x1b[0m ") + "\x1b[0m"

    def _escape(self, codes: str, kind: str) -> None:
        if kind == "m":
            self._style = "" if codes in ("", "0") else self._style + f"\x1b[{codes}m"
        elif kind == "A":
            self._row = max(0, self._row - int(codes or 1))
        elif kind == "K":
            del self._lines[self._row][0 if codes == "2" else self._column :]

    def _move(self, control: str) -> None:
        if control == "\r":
            self._column = 0
        elif control == "\b":
            self._column = max(0, self._column - 1)
        else:
            self._row += 1
            if self._row == len(self._lines):
                self._lines.append([])

    def _put(self, letter: str) -> None:
        if self._column == COLUMNS:
            self._move("\n")
            self._column = 0
        line = self._lines[self._row]
        line.extend([(" ", "")] * (self._column + 1 - len(line)))
        line[self._column] = letter, self._style
        self._column += 1


def run(command: str, folder: Path) -> list[tuple[float, str]]:
    """What a command writes to a terminal of 80 columns, in pieces with their times; raises if it fails."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        shlex.split(command),
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color", "PATH": path},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    pieces = []
    while piece := _read(ours):
        pieces.append((time.monotonic(), piece.decode(errors="replace")))
    os.close(ours)
    if process.wait() != 0:
        raise RuntimeError(f"{command}: failed:\n{''.join(piece for _, piece in pieces)}")
    return pieces


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so that the other end was closed
        return b""


def in_mid_air(pieces: list[tuple[float, str]]) -> str:
    """What had been written when three quarters of the time had passed: workers take a while to come up."""
    first, last = pieces[0][0], pieces[-1][0]
    return "".join(piece for moment, piece in pieces if moment <= first + 0.75 * (last - first))


def record(session: Session, folder: Path) -> None:
    """Run the commands of a session and write its picture."""
    console = Console(record=True, width=COLUMNS, force_terminal=True, color_system="truecolor", file=StringIO())
    for command in session.commands:
        pieces = run(command, folder)
        screen = Screen()
        is_last = command == session.commands[-1]
        screen.feed(in_mid_air(pieces) if session.is_cut and is_last else "".join(piece for _, piece in pieces))
        console.print(Text.assemble(("$ ", "dim"), (command, "bold")), soft_wrap=False)
        console.print(Text.from_ansi(screen.ansi()))
        if not is_last:
            console.print()
    picture = console.export_svg(title=session.title, theme=THEME, code_format=FORMAT, unique_id="terminal")
    (IMAGES / session.file).write_text(picture)


def main() -> None:
    """Record all sessions, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "quick.yaml").write_text(SWEEP)
        for session in SESSIONS:
            record(session, folder)


if __name__ == "__main__":
    main()
