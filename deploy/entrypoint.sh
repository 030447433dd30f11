#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Starts what the container is asked to run. The first daemon to come makes the cluster's key in the volume that both
# share; ln lets only one of them win.
set -eu
key=/var/lib/graft/cluster/key
case ${1:-} in
graft-metastore | graft-pagestore)
    if [ ! -s $key ]; then
        umask 077
        od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$key.$(hostname)"
        ln "$key.$(hostname)" $key 2>/dev/null || true
        rm -f "$key.$(hostname)"
    fi
    daemon=$1
    shift
    exec "$daemon" --cluster-key $key "$@"
    ;;
esac
exec "$@"
