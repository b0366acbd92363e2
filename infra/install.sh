# Sourced by demo.sh and test.sh: makes or reuses .venv and installs the project in it, editable.

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

# Prints the first Python that is new enough; the pins were made with 3.11, so that goes first.
python_for_venv() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  say "Python 3.11 or newer is needed and was not found on the PATH."
  return 1
}

# install EXTRAS: nothing is done when neither the pins nor the requirements changed since the last time.
install() {
  local extras="$1" python wanted
  if [[ ! -x .venv/bin/python ]]; then
    python="$(python_for_venv)"
    say "Making .venv with $("$python" --version)"
    "$python" -m venv .venv || {
      say "No virtual environment could be made; on Debian: apt-get install python3-venv"
      return 1
    }
  fi
  # What was installed with extras is enough for whoever wants none.
  wanted="$(cat pyproject.toml infra/constraints.txt | sha256sum | cut -d' ' -f1) $PWD $extras"
  if [[ -f .venv/installed ]] && grep -qF "$wanted" .venv/installed; then
    return
  fi
  say "Installing; the first time takes some minutes"
  .venv/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off \
    --constraint infra/constraints.txt --editable ".${extras:+[$extras]}"
  echo "$wanted" >>.venv/installed
}
