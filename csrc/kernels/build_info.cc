#include "kernels/build_info.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

namespace deepseek::kernels {

std::string simd_targets() {
  std::string s;
  for (int64_t bits = hwy::SupportedTargets() & (HWY_AVX2 | HWY_AVX3); bits != 0; bits &= bits - 1)
    s += std::string(s.empty() ? "" : " ") + hwy::TargetName(bits & (~bits + 1));
  return s;
}

std::string highway_version() {
  return std::to_string(HWY_MAJOR) + "." + std::to_string(HWY_MINOR) + "." + std::to_string(HWY_PATCH);
}

void cap_simd_targets(const std::string& isa) {
  if (isa == "avx2") hwy::DisableTargets(HWY_AVX3);
}

}  // namespace deepseek::kernels
