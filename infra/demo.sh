#!/usr/bin/env bash
# From nothing to decisions: installs, starts the embedded stack, sends sample uploads, shows the decisions.
#
#   bash infra/demo.sh          stays up until Ctrl-C
#   bash infra/demo.sh --exit   ends after the table
#
# --data FOLDER puts everything but .venv there instead of into .weir.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source infra/install.sh

data=.weir
leave=()
while (($#)); do
  case "$1" in
    --exit) leave=(--exit) ;;
    --data) data="${2:?--data needs a folder}" && shift ;;
    *)
      say "Unknown argument $1. Usage: bash infra/demo.sh [--exit] [--data FOLDER]"
      exit 2
      ;;
  esac
  shift
done

install ""
export PATH="$PWD/.venv/bin:$PATH"
exec weir up --data "$data" --timeout 300 "${leave[@]}"
