// Which SIMD targets the kernels choose from.
#pragma once

#include <string>

namespace deepseek::kernels {

// Usable on this CPU, best first: "AVX3 AVX2".
std::string simd_targets();

// The version of Highway this was compiled with.
std::string highway_version();

// Honours DEEPSEEK_ISA=avx2. Call before the first kernel runs.
void cap_simd_targets(const std::string& isa);

}  // namespace deepseek::kernels
