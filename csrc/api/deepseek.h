// All of the C++ API: #include <deepseek/deepseek.h>. Names and semantics are those of the Python package.
#pragma once

#include "api/functions.h"
#include "api/print.h"
#include "api/values.h"
#include "autograd/engine.h"
#include "base/version.h"
#include "core/mode.h"
#include "core/node.h"
#include "io/safetensors.h"
#include "ops/ops.h"
#include "optim/optimizer.h"
#include "runtime/parallel.h"
#include "runtime/rng.h"
