#!/usr/bin/env bash
# Installs geossl where needed and runs its demonstration: `bash tools/demo.sh [options of geossl demo]`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment
exec "$bin/geossl" demo "$@"
