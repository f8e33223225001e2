# Sourced by demo.sh and test.sh: chooses a Python environment and installs geossl into it where needed.
#
#   use_environment [EXTRA]   sets $python and $bin (its folder of commands)
#
# The active environment (venv or conda) is used; else .venv beside the project, made if absent.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

newest_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3.14 python3 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    echo "geossl needs Python 3.11 or newer, and none was found on PATH." >&2
    return 1
}

use_environment() {
    local extra="${1:-}" venv="" base stamp wanted log
    if [[ -n "${VIRTUAL_ENV:-}" || -n "${CONDA_PREFIX:-}" ]]; then
        python="$(newest_python_of "${VIRTUAL_ENV:-$CONDA_PREFIX}")" || return 1
    else
        venv="$root/.venv"
        if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
            base="$(newest_python)" || return 1
            if ! "$base" -m venv "$venv" 2>/dev/null; then
                echo "$base cannot make an environment: install its venv module (Debian: apt install python3-venv)," \
                    "or activate an environment of your own." >&2
                return 1
            fi
        fi
        python="$venv/bin/python"
    fi
    bin="$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')"

    # The stamp says what was installed: this checkout's metadata and kernels, and whether with the extra.
    stamp="$("$python" -c 'import sys; print(sys.prefix)')/.geossl-installed"
    wanted="$root $(cat "$root"/{setup.cfg,setup.py,pyproject.toml} "$root"/geossl/kernels/csrc/* | cksum)"
    if [[ -f "$stamp" && -x "$bin/geossl" ]] && grep -qxF "$wanted ${extra:-plain}" "$stamp" &&
        "$bin/geossl" --version >/dev/null 2>&1; then
        return
    fi
    echo "Installing geossl into $("$python" -c 'import sys; print(sys.prefix)') (about a minute where nothing has to" \
        "be downloaded; torch and its libraries are large)"
    log="$(mktemp)"
    if ! "$python" -m pip install --quiet --disable-pip-version-check -e "$root${extra:+[$extra]}" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        echo "Installing geossl failed; the lines above are pip's." >&2
        return 1
    fi
    rm -f "$log"
    { grep -F "$wanted " "$stamp" 2>/dev/null || true; echo "$wanted ${extra:-plain}"; } | sort -u >"$stamp.new"
    [[ -z "$extra" ]] || echo "$wanted plain" >>"$stamp.new"
    mv "$stamp.new" "$stamp"
}

newest_python_of() {
    local name
    for name in "$1/bin/python" "$1/Scripts/python.exe"; do
        if [[ -x "$name" ]]; then
            if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
                echo "$name"
                return
            fi
            echo "the active environment $1 has a Python older than 3.11; deactivate it or make a newer one." >&2
            return 1
        fi
    done
    echo "the active environment $1 has no Python." >&2
    return 1
}
