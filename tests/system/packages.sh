#!/bin/sh
# What the system tests need from the distribution. Installs it where it may, lists it where it may not.
set -u
missing=""
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need mosquitto mosquitto
need promtool prometheus
need openssl openssl
need pulseaudio pulseaudio
need pactl pulseaudio-utils
need arecord alsa-utils
need ffmpeg ffmpeg
need chromium chromium
need chromedriver chromium-driver
need debootstrap debootstrap
need systemd-nspawn systemd-container
need proot proot
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
need qemu-aarch64-static qemu-user-static
need buildah buildah
ldconfig -p 2>/dev/null | grep -q libportaudio.so.2 || missing="$missing libportaudio2"
find /usr/lib -name 'libasound_module_pcm_pulse.so' 2>/dev/null | grep -q . || missing="$missing libasound2-plugins"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for the system tests:$missing"
    # An image may forbid services to start at installation; the tests start what they need themselves.
    apt-get update -q >/dev/null &&
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null && exit 0
fi
echo "The system tests need these Debian packages, and are skipped without them:$missing"
echo "    sudo apt-get install$missing"
exit 0
