#!/usr/bin/env python3
"""Every --help is the one in tests/data/help. Usage: help_test.py SOURCE PROGRAM [--update]; --update rewrites them."""
import difflib
import pathlib
import re
import subprocess
import sys


def help_of(program, words):
    return subprocess.run([program, *words, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()


def commands_in(text):
    listed = re.search(r"^Subcommands:\n(.*?)(\n\n|\Z)", text, re.M | re.S)
    return re.findall(r"^  ([a-z][a-z-]*)", listed.group(1), re.M) if listed else []


def all_helps(program):
    """Of the program, its commands, and theirs, by a file's name."""
    helps = {"tuiqiao": help_of(program, [])}
    for command in commands_in(helps["tuiqiao"]):
        helps[command] = help_of(program, [command])
        for part in commands_in(helps[command]):
            helps[f"{command}-{part}"] = help_of(program, [command, part])
    return helps


def main():
    source, program = pathlib.Path(sys.argv[1]), sys.argv[2]
    folder = source / "tests/data/help"
    helps = all_helps(program)
    if sys.argv[3:] == ["--update"]:
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.txt"):
            old.unlink()
        for name, text in helps.items():
            (folder / f"{name}.txt").write_text(text)
    stored = {file.stem: file.read_text() for file in folder.glob("*.txt")}
    faults = 0
    for name in sorted(stored.keys() | helps.keys()):
        difference = list(difflib.unified_diff(stored.get(name, "").splitlines(), helps.get(name, "").splitlines(),
                                               f"tests/data/help/{name}.txt", "the program", lineterm=""))
        faults += bool(difference)
        print("\n".join(difference) if difference else f"{name}: as stored")
    if faults:
        print("Right as it is now? python3 tests/help_test.py SOURCE PROGRAM --update")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
