#!/usr/bin/env bash
# Installs geossl with what its tests need, then runs them: `bash tools/test.sh [options of pytest]`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment dev
cd "$root"
exec "$python" -m pytest "$@"
