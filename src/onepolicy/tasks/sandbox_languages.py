"""The languages a sandbox runs: file name, compiler, command, and how its memory can be bounded.

Tools are looked for where the sandbox can see them, below /usr and what else it mounts; a compiler in somebody's home
is not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onepolicy.errors import ConfigError, nearest

MB = 1024 * 1024
FOLDER = "/tmp/work"
"""Where a program is written, compiled and run inside the sandbox."""


@dataclass(frozen=True)
class Language:
    """How a program in one language is run.

    file: its name. tools: executables it needs. compile, run: commands, `{tool}` standing for a tool's path and
    `{memory}` for MB. package: Debian's, for the error. address_space: whether RLIMIT_AS may bound it (a virtual
    machine reserves far more than it uses). stack: bytes, 0 for the system's. own_memory: MB that the virtual
    machine itself takes.
    """

    file: str
    tools: tuple[str, ...]
    run: tuple[str, ...]
    package: str
    compile: tuple[str, ...] = ()
    address_space: bool = True
    stack: int = 0
    own_memory: int = 0


LANGUAGES: dict[str, Language] = {
    "python": Language("solution.py", ("python3",), ("{python3}", "-I", "-B", "solution.py"), "python3"),
    "c": Language(
        "solution.c",
        ("gcc",),
        ("./solution",),
        "gcc",
        ("{gcc}", "-O2", "-o", "solution", "solution.c", "-lm"),
        stack=64 * MB,
    ),
    "cpp": Language(
        "solution.cpp",
        ("g++",),
        ("./solution",),
        "g++",
        ("{g++}", "-O2", "-std=c++17", "-o", "solution", "solution.cpp"),
        stack=64 * MB,
    ),
    "javascript": Language(
        "solution.js",
        ("node",),
        ("{node}", "--max-old-space-size={memory}", "solution.js"),
        "nodejs",
        address_space=False,
        own_memory=256,
    ),
    "rust": Language(
        "solution.rs",
        ("rustc",),
        ("./solution",),
        "rustc",
        ("{rustc}", "-O", "-o", "solution", "solution.rs"),
        stack=64 * MB,
    ),
    "java": Language(
        "Main.java",
        ("java", "javac"),
        ("{java}", "-Xmx{memory}m", "-Xss16m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", ".", "Main"),
        "default-jdk-headless",
        ("{javac}", "-J-Xmx256m", "-J-XX:+UseSerialGC", "-J-XX:-UsePerfData", "Main.java"),
        address_space=False,
        own_memory=512,
    ),
}
"""Languages by name; Java's class is `Main`, Rust and the Cs are optimised."""

ALIASES = {"py": "python", "python3": "python", "c++": "cpp", "js": "javascript", "node": "javascript", "rs": "rust"}
"""Other names, as they stand after the ticks of a code block."""


def language_of(name: str) -> str:
    """A language's own name. Raises: ConfigError for an unknown one, offering the nearest."""
    lower = name.lower()
    known = ALIASES.get(lower, lower)
    if known not in LANGUAGES:
        raise ConfigError(f"Unknown language {name!r}. {nearest(lower, LANGUAGES)}")
    return known


def commands(name: str, memory_mb: int, folders: Sequence[str] = ("/usr",)) -> tuple[list[str], list[str]]:
    """(compile, run) commands of a language with its tools' paths; compile is empty where nothing is compiled.

    folders: what the sandbox can see, /etc/alternatives being followed to the tool itself; none where it runs
    elsewhere, whose tools are looked for there.
    Raises: ConfigError naming the tool that is missing and the package that has it.
    """
    language = LANGUAGES[language_of(name)]
    fields: dict[str, str] = {"memory": str(memory_mb)}
    path = ":".join([f"{folder}/{part}" for folder in folders for part in ("local/bin", "bin")])
    for tool in language.tools:
        if not folders:
            fields[tool] = tool
            continue
        found = shutil.which(tool, path=path)
        real = str(Path(found).resolve()) if found else ""
        if not real or not any(real.startswith(folder.rstrip("/") + os.sep) for folder in folders):
            raise ConfigError(
                f"{tool!r}, which {name} needs, is not below {' or '.join(folders)}, all that the sandbox sees. "
                f"Install it: apt install {language.package}; or name the folder that has it: Sandbox.open(mounts=...)."
            )
        fields[tool] = real
    return [_filled(word, fields) for word in language.compile], [_filled(word, fields) for word in language.run]


def available(folders: Sequence[str] = ("/usr",)) -> list[str]:
    """The languages whose tools are installed where the sandbox sees them."""
    found = []
    for name in LANGUAGES:
        try:
            commands(name, 1, folders)
        except ConfigError:
            continue
        found.append(name)
    return found


def _filled(word: str, fields: dict[str, str]) -> str:
    for name, value in fields.items():
        word = word.replace("{" + name + "}", value)
    return word
