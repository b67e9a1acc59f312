// What a code object does with names, read from its instructions.
#pragma once

#include <vector>

#include "python/python.h"

namespace deepseek::python {

// How code uses a name of its co_names, as bits.
enum NameUse : uint8_t {
  kGlobalCalled = 1,  // looked up to be called there and then
  kGlobalRead = 2,
  kGlobalWritten = 4,
  kAttributeCalled = 8,
  kAttributeRead = 16,
  kAttributeWritten = 32,
  kImported = 64,  // a module
};
inline constexpr uint8_t kGlobal = kGlobalCalled | kGlobalRead | kGlobalWritten;
inline constexpr uint8_t kAttribute = kAttributeCalled | kAttributeRead | kAttributeWritten;

struct CodeUse {
  std::vector<uint8_t> names;  // one for each of co_names
  bool handles = false;        // exceptions, by `except` or `finally`; `with` statements do not count
};

CodeUse use_of(PyCodeObject* code);

}  // namespace deepseek::python
