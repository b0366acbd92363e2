#!/usr/bin/env bash
# Installs what the tests need, then runs lint, types, import contracts and all tests.
#
#   bash infra/test.sh [arguments for pytest …]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source infra/install.sh

# Debian packages that tests need, and the command that each one brings.
declare -A packages=(
  [java]=default-jre-headless    # a real Kafka
  [openssl]=openssl              # its certificates
  [kcat]=kcat                    # a Kafka client that is not ours
  [redis-server]=redis-server    # the queue
  [chromium]=chromium            # the console
)

debian_packages() {
  local missing=() sudo=() command
  for command in "${!packages[@]}"; do
    command -v "$command" >/dev/null || missing+=("${packages[$command]}")
  done
  ((${#missing[@]})) || return 0
  [[ $(id -u) == 0 ]] || sudo=(sudo -n)
  if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
    say "Missing, and not ours to install: ${missing[*]}. Tests that need them will say so."
    return 0
  fi
  say "Installing Debian packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends \
      "${missing[@]}" >/dev/null || say "Some could not be installed. Tests that need them will say so."
}

timings=()
failed=0
step() {
  local name="$1" began=$SECONDS status=0
  shift
  say "── $name"
  "$@" || status=$?
  timings+=("$(printf '%-20s %4d s  %s' "$name" $((SECONDS - began)) "$([[ $status == 0 ]] && echo passed || echo "FAILED ($status)")")")
  [[ $status == 0 ]] || failed=1
}

step "Debian packages" debian_packages
step "install" install test
if ((failed)); then
  printf '%s\n' "${timings[@]}"
  exit 1
fi
export PATH="$PWD/.venv/bin:$PATH"
# One thread a process: the tests run two processes on two cores; with three, tests that wait for other programs waited
# too long now and then.
export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

step "ruff check" ruff check .
step "ruff format" ruff format --check .
step "mypy" mypy
step "import contracts" lint-imports
step "docstrings" interrogate --quiet tests
step "tests" python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 15 --durations-min 5 "$@"

printf '\n%s\n' "${timings[@]}"
printf 'all in %d s\n' "$SECONDS"
exit "$failed"
