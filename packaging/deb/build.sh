#!/bin/sh
# Build the Debian package: a self-contained virtual environment in /opt/asd-agent with unit, group, completions and man
# page. Run on the Debian release and architecture that it is for, as root or not, with python3-venv and dpkg-deb.
#
#     packaging/deb/build.sh WHEEL [OUTPUT_FOLDER]
#
# REVISION (default 1) follows the version. With Python 3.11 every package is checked against its sha256 in
# packaging/requirements.txt; with PIP_ARGS, such as --no-index --find-links /wheels, that is the caller's affair.
# COMPRESSION is that of dpkg-deb (default xz).
set -eu
wheel=$(realpath "$1")
output=$(realpath "${2:-.}")
here=$(cd "$(dirname "$0")" && pwd)
version=$(basename "$wheel" | cut -d- -f2)-${REVISION:-1}
architecture=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
umask 022

prefix=$stage/opt/asd-agent
/usr/bin/python3 -m venv "$prefix"
install="$prefix/bin/python -m pip install -q --disable-pip-version-check --no-compile"
locked=
[ -z "${PIP_ARGS:-}" ] && [ "$("$prefix/bin/python" -c 'import sys; print(sys.version_info[:2])')" = "(3, 11)" ] && locked=--no-deps
# shellcheck disable=SC2086
[ -z "$locked" ] || { $install --require-hashes -r "$here/../requirements.txt"
    "$prefix/bin/python" -m pip uninstall -q -y hatchling trove-classifiers pathspec pluggy; }
# shellcheck disable=SC2086
$install $locked ${PIP_ARGS:-} "$wheel"
asd_agent() { PYTHONDONTWRITEBYTECODE=1 "$prefix/bin/python" -m asd_agent "$@"; }
mkdir -p "$stage/usr/bin" "$stage/usr/lib/systemd/system" "$stage/usr/lib/sysusers.d" "$stage/etc/asd-agent" \
    "$stage/usr/share/bash-completion/completions" "$stage/usr/share/zsh/vendor-completions" \
    "$stage/usr/share/man/man1" "$stage/usr/share/doc/asd-agent" "$stage/DEBIAN"
asd_agent init --completion bash > "$stage/usr/share/bash-completion/completions/asd-agent"
asd_agent init --completion zsh > "$stage/usr/share/zsh/vendor-completions/_asd-agent"
asd_agent init --example > "$stage/usr/share/doc/asd-agent/agent.yaml.example"
"$prefix/bin/python" "$here/manpage.py" "$version" | gzip -9n > "$stage/usr/share/man/man1/asd-agent.1.gz"
cp "$(find "$prefix" -path '*asd_agent/setup/asd-agent.service')" "$stage/usr/lib/systemd/system/"
cp "$here/asd-agent.sysusers" "$stage/usr/lib/sysusers.d/asd-agent.conf"
cp "$here/copyright" "$stage/usr/share/doc/asd-agent/copyright"
ln -s /opt/asd-agent/bin/asd-agent "$stage/usr/bin/asd-agent"

# The environment knows its place: /opt/asd-agent, not the stage. pip is not needed any more.
"$prefix/bin/python" -m pip uninstall -q -y pip setuptools 2>/dev/null || true
find "$prefix" -name __pycache__ -type d -prune -exec rm -rf {} +
grep -rlI "$stage" "$prefix/bin" "$prefix/pyvenv.cfg" | xargs -r sed -i "s|$stage||g"

python=$("$prefix/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$prefix/bin/python" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
size=$(du -sk "$stage" | cut -f1)
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size/; s/@PYTHON@/$python/; s/@NEXT@/$next/" \
    "$here/control" > "$stage/DEBIAN/control"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$stage/DEBIAN/$script"; done
dpkg-deb --root-owner-group -Z"${COMPRESSION:-xz}" --build "$stage" "$output/asd-agent_${version}_$architecture.deb"
