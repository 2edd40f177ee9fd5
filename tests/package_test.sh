#!/usr/bin/env bash
# Unpacks a Debian package into a clean folder and runs what it holds. Usage: package_test.sh FILE.deb SOURCE
set -euo pipefail
package=$(realpath "$1") source=$(realpath "$2")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
dpkg-deb --info "$package" | grep -E "Package:|Version:|Depends:" | cut -c1-200
dpkg-deb --extract "$package" "$root"
cd "$root"
[ "$(usr/bin/tuiqiao minsum 130 | head -n 1)" = "130 = 10 * 13 + 0    sum 23" ]
if [ -x usr/libexec/tuiqiao-torch ]; then
  usr/bin/tuiqiao torch-info
  usr/bin/tuiqiao diffusion sample --model usr/share/tuiqiao/models/fashion-mnist -n 2 --steps 2 --grid two.png
  [ -s two.png ]
fi
model=$source/tests/data/models/tiny-llama.gguf
if ! usr/bin/tuiqiao --help | grep -q "Left out.* generate"; then
  usr/bin/tuiqiao audit "$model" --top 0 >audit.txt
  usr/bin/tuiqiao generate -m "$model" --template none -n 2 "The river" >answer.txt
fi
for file in usr/share/man/man1/tuiqiao.1 usr/share/bash-completion/completions/tuiqiao usr/include/tuiqiao/minsum.h \
  usr/include/tuiqiao/text/decoder.h; do
  [ -s "$file" ] || { echo "package_test: $file is missing" >&2; exit 1; }
done
[ -n "$(find usr -name tuiqiao-config.cmake)" ] && [ -n "$(find usr -name 'libtuiqiao_core.*')" ]
if [ -d usr/lib/*/tuiqiao/llama ]; then  # then no path of the build may be needed
  readelf -d usr/bin/tuiqiao | grep -i runpath | grep -q 'ORIGIN'
fi
echo "package_test: $(basename "$package") holds what it should"
