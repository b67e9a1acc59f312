#include "runtime/cpu.h"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "base/check.h"
#include "gmock/gmock.h"
#include "tests/runtime/runtime_testing.h"

namespace deepseek {
namespace {

using ::testing::HasSubstr;

constexpr CpuFeatures kHaswell{
    .avx2 = true, .fma = true, .f16c = true, .bmi2 = true, .avx512 = false, .avx512_vnni = false, .avx512_bf16 = false};
constexpr CpuFeatures kZen4{
    .avx2 = true, .fma = true, .f16c = true, .bmi2 = true, .avx512 = true, .avx512_vnni = true, .avx512_bf16 = true};

// The value of the first line of /proc/cpuinfo that starts with `key`.
std::string cpuinfo(const std::string& key) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind(key, 0) == 0) return line.substr(std::min(line.find(':') + 2, line.size()));
  return {};
}

// The name that the CPU, or the program that emulates it, gives itself.
std::string cpu_brand() {
  std::array<unsigned, 12> words{};
  for (unsigned i = 0; i < 3; ++i)
    __get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
  return {reinterpret_cast<const char*>(words.data()), strnlen(reinterpret_cast<const char*>(words.data()), 48)};
}

TEST(Cpu, AgreesWithTheKernel) {
  std::set<std::string> flags;
  std::istringstream words(cpuinfo("flags"));
  for (std::string word; words >> word;) flags.insert(word);
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo lists no flags";
  // The kernel drops blanks at both ends.
  if (cpu_brand().find(cpuinfo("model name")) == std::string::npos) GTEST_SKIP() << "emulated: /proc shows the host";
  const CpuFeatures f = detail::detected_cpu_features();
  EXPECT_EQ(f.avx2, flags.count("avx2"));
  EXPECT_EQ(f.fma, flags.count("fma"));
  EXPECT_EQ(f.f16c, flags.count("f16c"));
  EXPECT_EQ(f.bmi2, flags.count("bmi2"));
  EXPECT_EQ(f.avx512, flags.count("avx512f") && flags.count("avx512bw") && flags.count("avx512vl"));
  EXPECT_EQ(f.avx512_vnni, f.avx512 && flags.count("avx512_vnni"));
  EXPECT_EQ(f.avx512_bf16, f.avx512 && flags.count("avx512_bf16"));
}

TEST(Cpu, Names) {
  EXPECT_EQ(detail::isa_name_of(kHaswell), "avx2");
  EXPECT_EQ(detail::isa_name_of(kZen4), "avx512+vnni+bf16");
  CpuFeatures f = kZen4;
  f.avx512_bf16 = false;
  EXPECT_EQ(detail::isa_name_of(f), "avx512+vnni");
  f.avx512_vnni = false;
  EXPECT_EQ(detail::isa_name_of(f), "avx512");
  EXPECT_EQ(detail::isa_name_of({}), "unsupported");
}

TEST(Cpu, FloorNamesWhatIsMissing) {
  EXPECT_EQ(detail::missing_features_reason(kHaswell), "");
  CpuFeatures f = kHaswell;
  f.fma = f.bmi2 = false;
  EXPECT_THAT(detail::missing_features_reason(f), HasSubstr("missing: FMA, BMI2"));
}

TEST(Cpu, Cap) {
  EXPECT_EQ(detail::isa_name_of(detail::cap_features(kZen4, nullptr)), "avx512+vnni+bf16");
  EXPECT_EQ(detail::isa_name_of(detail::cap_features(kZen4, "")), "avx512+vnni+bf16");
  EXPECT_EQ(detail::isa_name_of(detail::cap_features(kZen4, "avx512")), "avx512");
  EXPECT_EQ(detail::isa_name_of(detail::cap_features(kZen4, "avx2")), "avx2");
  EXPECT_EQ(detail::isa_name_of(detail::cap_features(kHaswell, "avx512")), "avx2");
  EXPECT_THROW(detail::cap_features(kZen4, "sse2"), ValueError);
}

TEST(CpuEnvironment, DISABLED_Print) {
  try {
    std::printf("isa=%s;\n", isa_name().c_str());
  } catch (const ValueError& error) {
    std::printf("ValueError: %s\n", error.what());
  }
}

TEST(CpuEnvironment, IsaVariable) {
  if (unsupported_cpu_reason().empty()) {
    EXPECT_THAT(testing::run_child_test("DEEPSEEK_ISA=avx2", "CpuEnvironment.DISABLED_Print").output,
                HasSubstr("isa=avx2;"));
  }
  EXPECT_THAT(testing::run_child_test("DEEPSEEK_ISA=neon", "CpuEnvironment.DISABLED_Print").output,
              HasSubstr("ValueError: DEEPSEEK_ISA must be \"avx2\" or \"avx512\", got \"neon\""));
}

}  // namespace
}  // namespace deepseek
