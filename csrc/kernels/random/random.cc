#include "kernels/random/random.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <utility>
#include <vector>

#include "kernels/loops/cast.h"
#include "kernels/random/random_blocks.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kBlock = kRandomBlock;
constexpr int64_t kGrainBlocks = 8;

// Calls f(first element, number of elements) for blocks of kBlock elements, on several threads.
template <class F>
void for_each_block(int64_t n, F&& f) {
  parallel_for((n + kBlock - 1) / kBlock, kGrainBlocks, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) f(b * kBlock, std::min(kBlock, n - b * kBlock));
  });
}

// The words of elements [first, first + n), first a multiple of kBlock.
struct Words {
  alignas(64) uint32_t value[kBlock];

  Words(RngState state, int64_t first, int64_t n, uint32_t stream = 0) {
    state.offset += static_cast<uint64_t>(first) / 4;
    philox_words(state, stream, n, value);
  }
  uint32_t operator[](int64_t i) const { return value[i]; }
};

struct Words64 {
  Words upper, lower;

  Words64(RngState state, int64_t first, int64_t n) : upper(state, first, n, 0), lower(state, first, n, 1) {}
  uint64_t operator[](int64_t i) const { return static_cast<uint64_t>(upper[i]) << 32 | lower[i]; }
};

uint64_t mul_high(uint64_t a, uint64_t b) { return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64); }

double fraction53(uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }               // [0, 1)
double open_fraction52(uint64_t word) { return (static_cast<double>(word >> 12) + 0.5) * 0x1p-52; }  // (0, 1)
double open_fraction32(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }        // (0, 1)

// Bits of the fraction of a uniform draw: as many as 1 has in front of its rounding error.
template <class T>
constexpr int kDigits = std::is_same_v<T, Half>       ? 11
                        : std::is_same_v<T, BFloat16> ? 8
                                                      : std::numeric_limits<T>::digits;

// The largest T below x.
template <class T>
T below(double x) {
  if constexpr (is_small_float<T>) {
    const T rounded(static_cast<float>(x));
    if (static_cast<double>(static_cast<float>(rounded)) < x) return rounded;
    if ((rounded.bits & 0x7fff) == 0) return T::from_bits(0x8001);
    return T::from_bits(rounded.bits & 0x8000 ? rounded.bits + 1 : rounded.bits - 1);
  } else {
    const T rounded = static_cast<T>(x);
    return static_cast<double>(rounded) < x ? rounded : std::nextafter(rounded, -std::numeric_limits<T>::infinity());
  }
}

// Thresholds for p's elements [first, first + n): an element is 1 when its word is below ceil(p * 2^32).
template <class P>
void thresholds(const View& p, int64_t first, int64_t n, uint64_t* out) {
  const int dims = p.ndim();
  Dims at = Dims::filled(dims, 0);
  int64_t offset = 0;
  for (int d = dims - 1, rest_is_zero = 0; d >= 0 && !rest_is_zero; --d) {
    at[d] = first % p.sizes[d];
    first /= p.sizes[d];
    offset += at[d] * p.strides[d];
    rest_is_zero = first == 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    const double value = convert<double>(p.as<P>()[offset]);
    DS_CHECK(value >= 0 && value <= 1, "bernoulli(): every probability must be in [0, 1], got ", value);
    out[i] = static_cast<uint64_t>(std::ceil(value * 0x1p32));
    for (int d = dims - 1; d >= 0; --d) {
      offset += p.strides[d];
      if (++at[d] < p.sizes[d]) break;
      offset -= at[d] * p.strides[d];
      at[d] = 0;
    }
  }
}

bool is_one_value(const View& v) {
  for (int d = 0; d < v.ndim(); ++d)
    if (v.strides[d] != 0 && v.sizes[d] != 1) return false;
  return true;
}

// --- multinomial, one row ---

double checked_weight(double w) {
  DS_CHECK(w >= 0 && w <= std::numeric_limits<double>::max(),
           "multinomial(): every weight must be finite and not negative, got ", w);
  return w;
}

// 64 random bits of any element, for draws that are few or not in blocks.
uint64_t word64(RngState state, int64_t i) {
  const uint64_t counter = state.offset + static_cast<uint64_t>(i) / 4;
  const std::array<uint32_t, 2> key{static_cast<uint32_t>(state.seed), static_cast<uint32_t>(state.seed >> 32)};
  const auto draw = [&](uint32_t stream) {
    return philox4x32({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), stream, 0}, key)[i % 4];
  };
  return static_cast<uint64_t>(draw(0)) << 32 | draw(1);
}

void sample_with_replacement(std::vector<double>& sums, RngState state, int64_t first_draw, int64_t k, int64_t* out) {
  for (size_t i = 1; i < sums.size(); ++i) sums[i] += sums[i - 1];
  const double total = sums.back();
  DS_CHECK(total > 0 && total <= std::numeric_limits<double>::max(),
           "multinomial(): the weights of a row must have a positive, finite sum, got ", total);
  // The first index with the whole sum: a product that rounds up to the total may not run past the last positive
  // weight.
  const int64_t last = std::lower_bound(sums.begin(), sums.end(), total) - sums.begin();
  for (int64_t j = 0; j < k; ++j) {
    const double target = fraction53(word64(state, first_draw + j)) * total;
    out[j] = std::min<int64_t>(last, std::upper_bound(sums.begin(), sums.end(), target) - sums.begin());
  }
}

// Exponential clocks: the k categories whose clocks with rate w ring first.
void sample_without_replacement(const std::vector<double>& weights, RngState state, int64_t first_draw, int64_t k,
                                int64_t* out) {
  std::vector<std::pair<double, int64_t>> clocks;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const double u = open_fraction52(word64(state, first_draw + static_cast<int64_t>(i)));
    clocks.emplace_back(-std::log(u) / weights[i], static_cast<int64_t>(i));
  }
  DS_CHECK(!clocks.empty(), "multinomial(): the weights of a row must have a positive sum, got 0");
  DS_CHECK(static_cast<int64_t>(clocks.size()) >= k, "multinomial(): cannot draw ", k,
           " samples without replacement from ", clocks.size(), " categories with positive weight");
  std::partial_sort(clocks.begin(), clocks.begin() + k, clocks.end());
  for (int64_t j = 0; j < k; ++j) out[j] = clocks[j].second;
}

}  // namespace

void uniform(const View& out, RngState state, double low, double high) {
  dispatch_float("uniform", out.dtype, [&]<class T>() {
    T* const data = out.as<T>();
    using C = ComputeType<T>;
    const C base = static_cast<C>(low), range = static_cast<C>(high - low);
    const C limit = low < high ? std::max(base, static_cast<C>(below<T>(high))) : base;
    for_each_block(out.numel(), [&](int64_t first, int64_t n) {
      if constexpr (std::is_same_v<T, float>) {
        const Words words(state, first, n);
        alignas(64) float values[kBlock];
        uniform_from_words(words.value, n, base, range, limit, values);
        std::memcpy(data + first, values, n * sizeof(float));
      } else if constexpr (std::is_same_v<T, double>) {
        const Words64 words(state, first, n);
        for (int64_t i = 0; i < n; ++i) data[first + i] = std::min(base + range * fraction53(words[i]), limit);
      } else {
        const Words words(state, first, n);
        constexpr float kUnit = 1.0f / (1 << kDigits<T>);
        for (int64_t i = 0; i < n; ++i) {
          const float u = static_cast<float>(words[i] >> (32 - kDigits<T>)) * kUnit;
          data[first + i] = T(std::min(base + range * u, limit));
        }
      }
    });
  });
}

void normal(const View& out, RngState state, double mean, double std) {
  dispatch_float("normal", out.dtype, [&]<class T>() {
    T* const data = out.as<T>();
    for_each_block(out.numel(), [&](int64_t first, int64_t n) {
      if constexpr (std::is_same_v<T, double>) {
        const int64_t even = n + n % 2;
        const Words64 words(state, first, even);
        for (int64_t i = 0; i < n; i += 2) {
          const double radius = std::sqrt(-2 * std::log(1 - fraction53(words[i])));
          const double angle = 2 * std::numbers::pi * fraction53(words[i + 1]);
          data[first + i] = mean + std * (radius * std::cos(angle));
          if (i + 1 < n) data[first + i + 1] = mean + std * (radius * std::sin(angle));
        }
      } else {
        const Words words(state, first, n);
        alignas(64) float values[kBlock];
        normal_from_words(words.value, n, static_cast<float>(mean), static_cast<float>(std), values);
        if constexpr (std::is_same_v<T, float>)
          std::memcpy(data + first, values, n * sizeof(float));
        else
          for (int64_t i = 0; i < n; ++i) data[first + i] = T(values[i]);
      }
    });
  });
}

void exponential(const View& out, RngState state, double rate) {
  dispatch_float("exponential", out.dtype, [&]<class T>() {
    T* const data = out.as<T>();
    for_each_block(out.numel(), [&](int64_t first, int64_t n) {
      if constexpr (std::is_same_v<T, double>) {
        const Words64 words(state, first, n);
        for (int64_t i = 0; i < n; ++i) data[first + i] = -std::log(open_fraction52(words[i])) / rate;
      } else {
        const Words words(state, first, n);
        for (int64_t i = 0; i < n; ++i) data[first + i] = convert<T>(-std::log(open_fraction32(words[i])) / rate);
      }
    });
  });
}

void randint(const View& out, RngState state, int64_t low, int64_t high) {
  DS_CHECK(low < high, "randint(): low must be less than high, got ", low, " and ", high);
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  dispatch(out.dtype, [&]<class T>() {
    T* const data = out.as<T>();
    for_each_block(out.numel(), [&](int64_t first, int64_t n) {
      const Words64 words(state, first, n);
      for (int64_t i = 0; i < n; ++i)
        data[first + i] = convert<T>(static_cast<int64_t>(static_cast<uint64_t>(low) + mul_high(words[i], range)));
    });
  });
}

void bernoulli(const View& out, const View& p, RngState state) {
  if (out.numel() == 0) return;
  dispatch_float("bernoulli", p.dtype, [&]<class P>() {
    const bool same = is_one_value(p);
    uint64_t one = 0;
    if (same) thresholds<P>(p, 0, 1, &one);
    dispatch(out.dtype, [&]<class T>() {
      T* const data = out.as<T>();
      const T values[2] = {convert<T>(0), convert<T>(1)};
      for_each_block(out.numel(), [&](int64_t first, int64_t n) {
        const Words words(state, first, n);
        if (same) {
          for (int64_t i = 0; i < n; ++i) data[first + i] = values[words[i] < one];
          return;
        }
        uint64_t limits[kBlock];
        thresholds<P>(p, first, n, limits);
        for (int64_t i = 0; i < n; ++i) data[first + i] = values[words[i] < limits[i]];
      });
    });
  });
}

void random_permutation(int64_t* out, int64_t n, RngState state) {
  // Fisher-Yates from the front: the new element i changes places with a random one of the first i + 1.
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    const Words64 words(state, first, count);
    for (int64_t i = first; i < first + count; ++i) {
      const auto j = static_cast<int64_t>(mul_high(words[i - first], static_cast<uint64_t>(i) + 1));
      out[i] = i;
      std::swap(out[i], out[j]);
    }
  }
}

int64_t multinomial_draws(int64_t rows, int64_t n, int64_t k, bool replacement) { return rows * (replacement ? k : n); }

void multinomial(const View& out, const View& probs, RngState state, bool replacement) {
  const int64_t rows = probs.sizes[0], n = probs.sizes[1], k = out.sizes[1];
  if (rows == 0 || k == 0) return;
  DS_CHECK(n > 0, "multinomial(): cannot draw from zero categories");
  dispatch_float("multinomial", probs.dtype, [&]<class P>() {
    parallel_for(rows, std::max<int64_t>(1, 4096 / n), [&](int64_t begin, int64_t end) {
      std::vector<double> weights(n);
      for (int64_t r = begin; r < end; ++r) {
        const P* row = probs.as<P>() + r * probs.strides[0];
        for (int64_t i = 0; i < n; ++i) weights[i] = checked_weight(convert<double>(row[i * probs.strides[1]]));
        int64_t* samples = out.as<int64_t>() + r * k;
        if (replacement)
          sample_with_replacement(weights, state, r * k, k, samples);
        else
          sample_without_replacement(weights, state, r * n, k, samples);
      }
    });
  });
}

}  // namespace deepseek::kernels
