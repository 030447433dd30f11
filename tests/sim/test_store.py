# SPDX-License-Identifier: Apache-2.0
"""The local store at random work beside a model of it (store_soak.c): a few seconds, with a seed that can be given."""
import os
import random
import subprocess
import sys
import tempfile

import cluster

SECONDS = os.environ.get("GRAFT_STORE_SECONDS", "8")
PAGES = os.environ.get("GRAFT_STORE_PAGES", "20000")


def main():
    seed = os.environ.get("GRAFT_SIM_SEED", str(random.getrandbits(32)))
    print(f"# GRAFT_SIM_SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="graft-store-") as folder:
        sys.exit(subprocess.run([cluster.BUILD / "tests/sim/store-soak", f"{folder}/data", seed, SECONDS, PAGES],
                                check=False).returncode)


if __name__ == "__main__":
    main()
