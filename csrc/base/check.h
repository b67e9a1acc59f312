// Exceptions and checks. Each class maps to the Python class PyTorch raises for the same mistake.
#pragma once

#include <stdexcept>

#include "base/text.h"

namespace deepseek {

class Error : public std::runtime_error {  // RuntimeError
 public:
  using std::runtime_error::runtime_error;
};

#define DS_DEFINE_ERROR(Name) \
  class Name : public Error { \
   public:                    \
    using Error::Error;       \
  }

DS_DEFINE_ERROR(TypeError);
DS_DEFINE_ERROR(ValueError);
DS_DEFINE_ERROR(IndexError);
DS_DEFINE_ERROR(NotImplementedError);
DS_DEFINE_ERROR(BufferError);
DS_DEFINE_ERROR(OutOfMemoryError);  // MemoryError
DS_DEFINE_ERROR(LoadError);         // deepseek.LoadError: a file that breaks its format's rules
DS_DEFINE_ERROR(Interrupted);       // a Python exception (e.g. KeyboardInterrupt) is already set
#undef DS_DEFINE_ERROR

template <class E>
[[noreturn, gnu::cold, gnu::noinline]] void fail_with(std::initializer_list<Word> message) {
  throw E(text_of(message));
}

// Hundreds of calls with arguments of all types: one list of words each, so that they cost little to compile.
template <class E = Error, class... Args>
[[noreturn, gnu::always_inline]] inline void fail(const Args&... args) {
  fail_with<E>({args...});
}

}  // namespace deepseek

#define DS_CHECK(condition, ...)     \
  do {                               \
    if (!(condition)) [[unlikely]]   \
      ::deepseek::fail(__VA_ARGS__); \
  } while (false)

#define DS_CHECK_AS(ErrorType, condition, ...)              \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::deepseek::fail<::deepseek::ErrorType>(__VA_ARGS__); \
  } while (false)
