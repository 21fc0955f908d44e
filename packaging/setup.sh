#!/bin/sh
# Makes .venv in the checkout with everything that run and test need. Safe to call again: does nothing when nothing changed.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

names() { sed -e 's/#.*//' packaging/debian-packages.txt | awk "$1"; }
missing_of() {
  for name in $1; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' && continue
    # Ubuntu 24.04 and Debian 13 carry some libraries under a name that ends in t64
    dpkg-query -W -f '${Status}' "${name}t64" 2>/dev/null | grep -q 'install ok installed' && continue
    printf '%s ' "$name"
  done
}

if command -v dpkg-query >/dev/null 2>&1; then
  missing=$(missing_of "$(names '{print $1}')")
  if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
      say "installing Debian packages: $missing"
      export DEBIAN_FRONTEND=noninteractive
      apt-get update -qq >&2 || say "apt-get update failed; going on with the lists at hand"
      # one by one after a failure, so that a package that this release does not carry does not take the others with it
      # shellcheck disable=SC2086
      apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || for name in $missing; do
        apt-get install -y -qq --no-install-recommends "$name" >/dev/null 2>&1 || say "could not install $name"
      done
    else
      say "not root, so these Debian packages stay missing: $missing"
    fi
    blocking=$(missing_of "$(names '$2 == "!" {print $1}')")
  fi
fi

python=""
for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13 python3.14; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 to 3.14 is needed and was not found. Install it, or name one: make run PYTHON=/path/to/python3.12"
  exit 1
fi

wanted=$(cat pyproject.toml packaging/constraints.txt | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.medapp-setup 2>/dev/null)" != "$wanted" ]; then
  if [ ! -x .venv/bin/python ]; then
    say "making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
      say "python3-venv is missing. Run once: sudo apt-get install -y python3-venv"
      rm -rf .venv
      exit 1
    fi
  fi
  say "installing Python packages (about 2 minutes on a fast line)"
  # torch by its exact name first, so that no resolver picks another build
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 -c packaging/constraints.txt -e '.[dev]'
  .venv/bin/python -m compileall -q .venv/lib >/dev/null 2>&1 || true
  printf '%s' "$wanted" > .venv/.medapp-setup
fi
.venv/bin/python -m compileall -q medapp >/dev/null 2>&1 || true  # so that the first start is quick

if ! QT_QPA_PLATFORM=offscreen .venv/bin/python -c 'from PySide6.QtWidgets import QApplication; QApplication([])' 2>/tmp/medapp-setup.$$; then
  say "Qt does not start: $(tail -n 1 /tmp/medapp-setup.$$)"
  rm -f /tmp/medapp-setup.$$
  say "run once: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${blocking:-$(names '{print $1}' | tr '\n' ' ')}"
  exit 1
fi
rm -f /tmp/medapp-setup.$$
say "ready"
