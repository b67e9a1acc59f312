// DLPack exchange (https://dmlc.github.io/dlpack): the C structs of version 1, and conversions.
#pragma once

#include "python/python.h"

namespace deepseek::python {

// A new capsule "dltensor" (or "dltensor_versioned") that keeps the memory alive. `copied`: nobody else has this
// memory.
PyObject* to_dlpack(const Tensor& t, bool versioned, bool copied);
// Takes over a capsule of either kind; BufferError when it was consumed or cannot be shared.
Tensor from_dlpack_capsule(PyObject* capsule);
// The memory of an object with __dlpack__; BufferError where that is not the CPU's.
Tensor from_dlpack_producer(PyObject* producer);

}  // namespace deepseek::python
