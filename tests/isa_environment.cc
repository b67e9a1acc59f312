// The tests honour DEEPSEEK_ISA as the Python module does, so that ctest runs the kernels on lesser CPUs too.
#include "kernels/build_info.h"
#include "runtime/cpu.h"

namespace deepseek {
namespace {

[[maybe_unused]] const bool kCapped = (kernels::cap_simd_targets(isa_name()), true);

}  // namespace
}  // namespace deepseek
