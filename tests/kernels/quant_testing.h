// Quantized matrices that own their memory, and the formats to test.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/quant/quantize.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::testing {

struct QuantCase {
  const kernels::QuantFormat* format;
  int64_t block;
  QuantCase(const kernels::QuantFormat& f, int64_t b) : format(&f), block(b) {}
  QuantCase(std::string_view name, int64_t b) : format(kernels::find_format(name)), block(b) {}
  std::string name() const { return std::string(format->name) + "/" + std::to_string(block); }
};
// Every format with every block size.
inline std::vector<QuantCase> quant_cases() {
  std::vector<QuantCase> all;
  for (const kernels::QuantFormat& f : kernels::quant_formats())
    for (const int64_t block : f.blocks)
      if (block >= 0) all.emplace_back(f, block);
  return all;
}
// Those of them that qgemm reads as whole numbers, and the others.
inline std::vector<QuantCase> quant_cases(bool whole_numbers) {
  std::vector<QuantCase> all;
  for (const QuantCase& c : quant_cases())
    if ((c.format->packed != nullptr) == whole_numbers) all.push_back(c);
  return all;
}

// What each byte of codes stands for at scale 1: the values of its codes.
inline std::vector<std::vector<float>> values_of_bytes(const kernels::QuantFormat& f, uint8_t zero = 0) {
  const float scale = 1;
  std::vector<std::vector<float>> all;
  for (int i = 0; i < 256; ++i) {
    const auto code = static_cast<uint8_t>(i);
    all.emplace_back(static_cast<size_t>(f.per_byte));
    f.decode({&code, f.per_byte, f.per_byte, &scale, f.has_zeros ? &zero : nullptr}, all.back().data());
  }
  return all;
}

struct QuantArray {
  kernels::QuantMatrix m;
  std::vector<uint8_t> codes, zeros;
  std::vector<float> scales;
  QuantArray(const QuantCase& c, int64_t n, int64_t k) : m{c.format, n, k, c.block} {
    codes.resize(static_cast<size_t>(n * m.row_bytes()));
    scales.resize(static_cast<size_t>(m.scale_rows() * m.blocks()));
    if (m.format->has_zeros) zeros.resize(scales.size());
    m = matrix();
  }
  QuantArray(const QuantArray&) = delete;
  kernels::QuantMatrix matrix() {
    kernels::QuantMatrix q = m;
    q.codes = codes.data(), q.scales = scales.data(), q.zeros = zeros.data();
    return q;
  }
  float scale_at(int64_t i, int64_t k) const { return scales[side_of(i, k)]; }
  uint8_t zero_at(int64_t i, int64_t k) const { return m.format->has_zeros ? zeros[side_of(i, k)] : uint8_t{0}; }
  size_t side_of(int64_t i, int64_t k) const {
    return static_cast<size_t>(i / m.format->rows * m.blocks() + k / m.block_size());
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
