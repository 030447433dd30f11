// SPDX-License-Identifier: Apache-2.0
#ifndef TESTS_SWEEP_OBJECTS_H
#define TESTS_SWEEP_OBJECTS_H

#include "common/base/random.h"

// Creates, replaces, uploads, removes in one store of each kind; what was acknowledged must be there, whole.
void objects_script(const char *folder, struct rng *rng);

#endif
