// Runs one test of this executable again, in a process with its own environment.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "gtest/gtest.h"

#if defined(__SANITIZE_THREAD__)
#define DS_TSAN 1
#else
#define DS_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define DS_ASAN 1
#else
#define DS_ASAN 0
#endif

namespace deepseek::testing {

struct ChildRun {
  int status;
  std::string output;
};

// `environment` as in a shell: "A=1 B=2". `test` names a DISABLED_ test that prints what it sees.
inline ChildRun run_child_test(const std::string& environment, const std::string& test) {
  std::array<char, 4096> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (length <= 0) return {-1, "readlink failed"};
  const std::string command = "env -u OMP_NUM_THREADS -u DEEPSEEK_NUM_THREADS " + environment + " '" + path.data() +
                              "' --gtest_also_run_disabled_tests --gtest_filter=" + test + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return {-1, "popen failed"};
  ChildRun run{0, {}};
  for (std::array<char, 512> line; std::fgets(line.data(), line.size(), pipe);) run.output += line.data();
  run.status = pclose(pipe);
  return run;
}

}  // namespace deepseek::testing
