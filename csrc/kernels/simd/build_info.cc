#include "kernels/simd/build_info.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

namespace deepseek::kernels {

// Asked once: SupportedTargets() leaves all that the CPU has as the choice for later calls, whatever was disabled.
static int64_t supported_targets() {
  static const int64_t found = [] {
    const int64_t targets = hwy::SupportedTargets();
    hwy::GetChosenTarget().Update(targets);
    return targets;
  }();
  return found;
}

std::string simd_targets() {
  std::string s;
  for (int64_t bits = supported_targets() & (HWY_AVX2 | HWY_AVX3); bits != 0; bits &= bits - 1)
    s += std::string(s.empty() ? "" : " ") + hwy::TargetName(bits & (~bits + 1));
  return s;
}

std::string highway_version() {
  return std::to_string(HWY_MAJOR) + "." + std::to_string(HWY_MINOR) + "." + std::to_string(HWY_PATCH);
}

void cap_simd_targets(const std::string& isa) {
  if (isa == "avx2") hwy::DisableTargets(HWY_AVX3);
  supported_targets();
}

}  // namespace deepseek::kernels
