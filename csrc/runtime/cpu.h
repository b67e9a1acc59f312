// What the CPU offers, and the floor below which the package refuses to load.
#pragma once

#include <string>

#include "base/dtype.h"

namespace deepseek {

struct CpuFeatures {
  bool avx2, fma, f16c, bmi2;             // the floor: Haswell, Zen
  bool avx512, avx512_vnni, avx512_bf16;  // avx512: F, BW, CD, DQ and VL together; the others only beside it
};

// What the kernels may use: the CPU's features, capped by the environment variable DEEPSEEK_ISA: "avx2", or "avx512"
// without VNNI and BF16. Throws ValueError when the variable holds anything else.
const CpuFeatures& cpu_features();
// Whether products of this dtype run on bf16 dot products (vdpbf16ps), whose sums differ from those of other kernels.
inline bool uses_bf16_dot(DType dtype) { return dtype == DType::kBFloat16 && cpu_features().avx512_bf16; }
// Empty when the CPU can run the package; otherwise a sentence saying what is missing.
std::string unsupported_cpu_reason();
// "avx2", "avx512", "avx512+vnni+bf16": for `deepseek doctor`.
std::string isa_name();

namespace detail {
CpuFeatures detected_cpu_features();
CpuFeatures cap_features(CpuFeatures f, const char* isa);  // isa may be null or empty: no cap
std::string missing_features_reason(const CpuFeatures& f);
std::string isa_name_of(const CpuFeatures& f);
}  // namespace detail

}  // namespace deepseek
