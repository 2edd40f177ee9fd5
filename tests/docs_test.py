#!/usr/bin/env python3
"""What the documentation shows is what the programs do.

`console` blocks are run, each line after "$ ", and what they print is compared with what follows: "..." stands for any
lines, what is MEASURED may differ, and what goes to standard error may be shown or not. Of `sh` blocks every command of tuiqiao is looked up: it and all its
options must be in its --help. Usage: docs_test.py SOURCE PROGRAM [console|commands]
"""
import difflib
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

# Another processor rounds otherwise: a token's source may change, and with it counts and entropies.
MEASURED = re.compile(r"\d+(\.\d+)? (s\b|tokens/s|[KMG]iB)|\s+\d+ %|entropy \d+\.\d+")


def blocks(text, language):
    return re.findall(r"^```%s\n(.*?)^```" % language, text, re.M | re.S)


def joined(lines):
    """Lines that end in a backslash with those that go on."""
    whole = []
    for line in lines:
        if whole and whole[-1].endswith("\\"):
            whole[-1] = whole[-1][:-1] + " " + line.strip()
        else:
            whole.append(line)
    return whole


def sessions(block):
    """(command, expected lines) of a console block."""
    found = []
    for line in joined(block.splitlines()):
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return found


def matches(expected, actual):
    if not expected:
        return not actual
    if expected[0] == "...":
        return any(matches(expected[1:], actual[i:]) for i in range(len(actual) + 1))
    return bool(actual) and expected[0] == actual[0] and matches(expected[1:], actual[1:])


@functools.cache  # both READMEs show the same commands
def printed(command, folder):
    """By a command, without the lines on standard error that tell of its speed."""
    run = subprocess.run(["bash", "-c", command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=800)
    return masked(run.stdout.decode(errors="replace").replace(str(pathlib.Path.home()), "~"))


def masked(text):
    lines = [MEASURED.sub("#", line.rstrip()) for line in text.splitlines()]
    lines = [line for line in lines if not line.startswith("first token #")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def check_console(source, program, pages):
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "build/release").mkdir(parents=True)
        for name in ("tuiqiao", "tuiqiao-torch"):
            if (program.parent / name).exists():
                (here / "build/release" / name).symlink_to(program.parent / name)
        for name in ("examples", "models", "src", "docs"):
            (here / name).symlink_to(source / name)
        for page in pages:
            for block in blocks(page.read_text(), "console"):
                for command, expected in sessions(block):
                    print(f"{page.name}: {command}", flush=True)
                    wanted = masked("\n".join(expected))
                    actual = printed(command, here)
                    if matches(wanted, actual):
                        continue
                    faults += 1
                    print("\n".join(difflib.unified_diff(wanted, actual, "the page", "the program", lineterm="")))
    return faults


def help_of(program, words):
    run = subprocess.run([program, *words, "--help"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return run.stdout.decode() if run.returncode == 0 else None


def check_commands(program, pages):
    faults, known = 0, {}
    for page in pages:
        text = page.read_text()
        for block in blocks(text, "sh") + blocks(text, "console"):
            for line in joined(block.splitlines()):
                for part in re.split(r"[;|&]+|(?<!\d)>", line.split(" # ")[0]):
                    found = re.search(r"(?:^|\s|/)tuiqiao\s+(.*)", part)
                    if not found:
                        continue
                    try:
                        words = shlex.split(found.group(1))
                    except ValueError:  # a quote that the split cut
                        words = found.group(1).split()
                    if not words or not re.fullmatch(r"[a-z-]+", words[0]) or words[0].startswith("-"):
                        continue
                    command = words[:1]
                    if words[0] == "diffusion" and len(words) > 1:
                        command = words[:2]
                    key = " ".join(command)
                    if key not in known:
                        known[key] = help_of(program, command)
                    if known[key] is None:
                        print(f"{page.name}: no command '{key}'")
                        faults += 1
                        continue
                    for word in words[len(command):]:
                        option = word.split("=")[0]
                        if not re.fullmatch(r"--?[a-zA-Z][a-z0-9-]*", option):
                            continue
                        if not re.search(r"(?<![\w-])%s(?![\w-])" % re.escape(option), known[key]):
                            print(f"{page.name}: '{key}' has no {option}: {line.strip()}")
                            faults += 1
    print(f"{len(known)} commands")
    return faults


def model_file():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "tuiqiao/models/gemma-3-270m-q4_k_m.gguf"


def main():
    source, program, what = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    pages = sorted([source / "README.md", source / "README.zh.md", *source.glob("docs/*.md"), *source.glob("models/*/README.md"),
                    *source.glob("examples/**/README.md")])
    if what == "console" and not model_file().exists():
        print("the model is missing: scripts/bootstrap fetches it")
        sys.exit(77)  # skipped
    faults = check_console(source, program, pages) if what == "console" else check_commands(program, pages)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
