#!/usr/bin/env bash
# Makes sure that the Debian packages the tests drive are there: Chromium, mosquitto, and a PostgreSQL beside the wheel's.
# Root installs what is missing; anybody else gets one line that says what to install.
set -euo pipefail
missing=()
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
command -v chromium >/dev/null || missing+=(chromium)
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "test: missing system packages; run: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "test: installing ${missing[*]}" >&2
# The tests start their own servers: keep the package from making and starting a cluster.
settings=/etc/postgresql-common/createcluster.conf
[ -e "$settings" ] || { mkdir -p "$(dirname "$settings")"; echo "create_main_cluster = false" > "$settings"; }
install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${missing[@]}" >"$log" 2>&1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install || { apt-get update -qq >"$log" 2>&1 && install; } || {
  tail -n 5 "$log" >&2
  echo "test: apt-get could not install ${missing[*]}; install them by hand and run this again" >&2
  exit 1
}
