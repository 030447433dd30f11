#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Proves the image and the compose file with a real container engine (podman, as root): builds the image, starts the
# cluster, imports and pushes a file, recreates the containers, reads the file back with a new replica, stops everything.
# Where debian:bookworm-slim cannot be pulled, it is made with debootstrap.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
base=docker.io/library/debian:bookworm-slim
work=$(mktemp -d)
export CONTAINERS_CONF="$work/containers.conf"
printf '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n' >"$CONTAINERS_CONF"

compose() {
    podman-compose -p graft-compose-test -f deploy/docker-compose.yml "$@"
}

graft() {
    podman run --rm --network graft-compose-test_default -v "$work:/exchange" -v "graft-compose-test_$replica:/var/lib/graft/store" \
        -e GRAFT_DATA=/var/lib/graft/store/replica -e GRAFT_METASTORE=http://metastore:3001 \
        -e GRAFT_PAGESTORE=http://pagestore:3000 localhost/graft:dev graft "$@"
}

finish() {
    status=$?
    [ $status = 0 ] || tail -n 20 "$work"/*.log >&2 || true
    compose down -v >/dev/null 2>&1 || true
    podman network rm -f graft-compose-test_default >/dev/null 2>&1 || true
    podman volume rm -f graft-compose-test_first graft-compose-test_second >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

healthy() {
    for service in metastore pagestore; do
        container=$(podman ps -q --filter "label=com.docker.compose.service=$service")
        tries=0
        until podman healthcheck run "$container" >/dev/null 2>&1; do
            tries=$((tries + 1))
            [ $tries -lt 100 ] || { podman logs "$container"; echo "$service is not healthy" >&2; exit 1; }
            sleep 0.2
        done
    done
}

if ! podman image exists $base && ! podman pull -q $base >/dev/null 2>&1; then
    echo "making $base with debootstrap"
    debootstrap --variant=minbase bookworm "$work/rootfs" >"$work/debootstrap.log"
    tar -C "$work/rootfs" -c . | podman import - $base >/dev/null
    rm -rf "$work/rootfs"
fi

echo "building the image"
podman build -q -f deploy/Dockerfile -t localhost/graft:dev . >/dev/null
podman run --rm localhost/graft:dev sh -c '! command -v cc gcc && [ "$(id -u)" != 0 ] && graft --version'

echo "starting the cluster"
compose up -d >"$work/compose.log" 2>&1
healthy
head -c 3000000 /dev/urandom >"$work/file"
chmod 755 "$work" && chmod 644 "$work/file"
replica=first
vid=$(graft import /exchange/file)
graft push "$vid"

echo "recreating the containers"
compose down >"$work/compose.log" 2>&1
compose up -d >"$work/compose.log" 2>&1
healthy
replica=second
graft clone "$vid"
graft export "$vid" - >"$work/copy"
cmp "$work/file" "$work/copy"
echo "the file that was pushed before came back: $(stat -c %s "$work/copy") bytes"
