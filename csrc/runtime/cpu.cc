// Runs on every x86-64 CPU: it decides whether code with wider instructions may run at all.
#include "runtime/cpu.h"

#include <cstdlib>
#include <cstring>

#include "base/check.h"

namespace deepseek {
namespace detail {

CpuFeatures detected_cpu_features() {
  CpuFeatures f{};
#if defined(__x86_64__)
  // These checks also ask the operating system whether it saves the wide registers.
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2");
  f.fma = __builtin_cpu_supports("fma");
  f.f16c = __builtin_cpu_supports("f16c");
  f.bmi2 = __builtin_cpu_supports("bmi2");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
  f.avx512_vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
  f.avx512_bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return f;
}

CpuFeatures cap_features(CpuFeatures f, const char* isa) {
  if (!isa || !*isa) return f;
  const bool avx512 = std::strcmp(isa, "avx512") == 0;
  DS_CHECK_AS(ValueError, avx512 || std::strcmp(isa, "avx2") == 0,
              "DEEPSEEK_ISA must be \"avx2\" or \"avx512\", got \"", isa, "\"");
  f.avx512 = f.avx512 && avx512;
  f.avx512_vnni = f.avx512_bf16 = false;
  return f;
}

std::string missing_features_reason(const CpuFeatures& f) {
  const struct {
    bool present;
    const char* name;
  } floor[] = {{f.avx2, "AVX2"}, {f.fma, "FMA"}, {f.f16c, "F16C"}, {f.bmi2, "BMI2"}};
  std::string missing;
  for (const auto& feature : floor) {
    if (feature.present) continue;
    if (!missing.empty()) missing.append(", ");
    missing.append(feature.name);
  }
  if (missing.empty()) return missing;
#if defined(__x86_64__)
  std::string reason(
      "deepseek needs an x86-64 CPU with AVX2, FMA, F16C and BMI2 (Intel Haswell, AMD Zen or newer); missing: ");
#else
  std::string reason("deepseek was built for a CPU that is not x86-64; its kernels need: ");
#endif
  return reason.append(missing);
}

std::string isa_name_of(const CpuFeatures& f) {
  if (!missing_features_reason(f).empty()) return "unsupported";
  std::string name(f.avx512 ? "avx512" : "avx2");
  if (f.avx512_vnni) name.append("+vnni");
  if (f.avx512_bf16) name.append("+bf16");
  return name;
}

}  // namespace detail

const CpuFeatures& cpu_features() {
  static const CpuFeatures features =
      detail::cap_features(detail::detected_cpu_features(), std::getenv("DEEPSEEK_ISA"));
  return features;
}

std::string unsupported_cpu_reason() { return detail::missing_features_reason(cpu_features()); }

std::string isa_name() { return detail::isa_name_of(cpu_features()); }

}  // namespace deepseek
