#!/usr/bin/env bash
# From nothing to decisions: installs, starts the embedded stack, sends sample uploads, shows the decisions.
#
#   bash infra/demo.sh          stays up until Ctrl-C
#   bash infra/demo.sh --exit   ends after the table
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source infra/install.sh

for argument in "$@"; do
  if [[ $argument != --exit ]]; then
    say "Unknown argument $argument. Usage: bash infra/demo.sh [--exit]"
    exit 2
  fi
done

install ""
export PATH="$PWD/.venv/bin:$PATH"
mkdir -p .weir
say "Drawing the sample uploads"
python -m infra.samples .weir/samples
exec weir up --data .weir --send .weir/samples "$@"
