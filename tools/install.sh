#!/bin/sh
# Installs the Debian packages that the build and its tests need and that are missing here.
set -eu
packages="gcc g++ make libc6-dev libpng-dev libjpeg-dev libyaml-dev libcjson-dev zlib1g-dev libcmocka-dev libgdcm-dev"
missing=""
for package in $packages; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
