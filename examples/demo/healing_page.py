#!/usr/bin/env python3
"""Writes a page that shows prompts and how they go on, unhealed and healed.

usage: healing_page.py UNHEALED.json HEALED.json EMOJI.json PAGE.html

The first two are from `tuiqiao generate --json`, the third from `tuiqiao score --json` for a prompt that ends inside an
emoji and the byte that completes it.
"""
import html
import json
import os
import sys


def summaries(file):
    with open(file, encoding="utf-8") as lines:
        return [entry["summary"] for entry in map(json.loads, lines) if "summary" in entry]


def cell(prompt, text):
    shown = html.escape(text).replace("\n", "↵<br>").replace("  ", " &nbsp;")
    return f"<td><span>{html.escape(prompt).replace(chr(10), '↵<br>')}</span><b>{shown}</b></td>"


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    unhealed, healed, emoji, page = sys.argv[1:]
    rows = []
    for before, after in zip(summaries(unhealed), summaries(healed), strict=True):
        bits = after["healing"]["bits_saved"]
        saved = "more than any" if bits is None else f"{bits:.1f}"
        rows.append(f"<tr>{cell(before['question'], before['answer'])}{cell(after['question'], after['answer'])}"
                    f"<td>{saved}</td></tr>")
    with open(emoji, encoding="utf-8") as lines:
        bits = {score["mode"]: score["bits"] for score in map(json.loads, lines)}
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Prompts that end inside a token</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}}
table{{border-collapse:collapse;width:100%}}td,th{{border-bottom:1px solid #8885;padding:.5rem;text-align:left;
vertical-align:top}}td span{{opacity:.65}}td:last-child{{text-align:right}}</style></head><body>
<h1>Prompts that end inside a token</h1>
<p>The most probable continuation of each prompt (pale): after its own tokens, and by the distribution over texts that
begin with its bytes. Last, how many bits the prompt's own tokens are less probable than the prompt.</p>
<table><thead><tr><th>unhealed</th><th>healed</th><th>bits</th></tr></thead><tbody>
{chr(10).join(rows)}
</tbody></table>
<p>After three of the four bytes of 😊 the last one costs {bits['off']:.1f} bits unhealed and {bits['exact']:.1f} bits
healed.</p>
</body></html>
"""
    with open(page + ".part", "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(page + ".part", page)


if __name__ == "__main__":
    main()
