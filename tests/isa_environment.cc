// The tests honour DEEPSEEK_ISA as the Python module does, so that ctest runs the kernels on lesser CPUs too.
#include "base/check.h"
#include "kernels/simd/build_info.h"
#include "runtime/cpu.h"

namespace deepseek {
namespace {

[[maybe_unused]] const bool kCapped = [] {
  try {
    kernels::cap_simd_targets(isa_name());
  } catch (const ValueError&) {  // a value that is wrong is for the test of that to report
  }
  return true;
}();

}  // namespace
}  // namespace deepseek
