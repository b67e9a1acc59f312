// Quantized matrices that own their memory, and the formats to test.
#pragma once

#include <string>
#include <vector>

#include "kernels/quant/quantize.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::testing {

struct QuantCase {
  kernels::QuantFormat format;
  int64_t block;
  std::string name() const { return std::string(kernels::traits_of(format).name) + "/" + std::to_string(block); }
};
inline std::vector<QuantCase> quant_cases() {
  std::vector<QuantCase> all;
  for (const kernels::QuantTraits& t : kernels::kQuantTraits)
    for (const int64_t block : t.blocks)
      if (block >= 0) all.push_back({t.format, block});
  return all;
}

struct QuantArray {
  kernels::QuantMatrix m;
  std::vector<uint8_t> codes, zeros;
  std::vector<float> scales;
  QuantArray(const QuantCase& c, int64_t n, int64_t k) : m{c.format, n, k, c.block} {
    codes.resize(static_cast<size_t>(n * m.row_bytes()));
    scales.resize(static_cast<size_t>(m.scale_rows() * m.blocks()));
    if (m.traits().has_zeros) zeros.resize(scales.size());
    m = matrix();
  }
  QuantArray(const QuantArray&) = delete;
  kernels::QuantMatrix matrix() {
    kernels::QuantMatrix q = m;
    q.codes = codes.data(), q.scales = scales.data(), q.zeros = zeros.data();
    return q;
  }
  float scale_at(int64_t i, int64_t k) const {
    return scales[static_cast<size_t>(i / m.traits().rows * m.blocks() + k / m.block_size())];
  }
};

// The number of threads while it lives; work is cut however small.
class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) {
    set_num_threads(n);
    set_grain_limit(1);
  }
  ~Threads() {
    set_num_threads(before_);
    set_grain_limit(0);
  }
  Threads(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace deepseek::testing
