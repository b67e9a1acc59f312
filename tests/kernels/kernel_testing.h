// Helpers for kernel tests: owning arrays with views, every SIMD target in turn, one against two threads.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "base/view.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

namespace deepseek::testing {

// Runs `body` once per SIMD target the CPU offers among those the kernels are compiled for (AVX2, AVX-512).
inline void for_each_target(const std::function<void()>& body) {
  for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_AVX3}}) {
    hwy::SetSupportedTargetsForTest(0);
    if (!(hwy::SupportedTargets() & target)) continue;
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

// How often a route ran since the last reset, on whichever target.
inline uint64_t times_run(const std::string& route) {
  uint64_t times = 0;
  for (const auto& [key, n] : kernels::route_counts())
    if (key.substr(0, key.find('/')) == route) times += n;
  return times;
}

// Owns elements of T; `lead` elements before the first make the data pointer unaligned.
template <class T>
struct Array {
  std::vector<T> data;
  Dims sizes;
  int lead;
  explicit Array(const Dims& s, int lead_elements = 0) : data(), sizes(s), lead(lead_elements) {
    data.resize(static_cast<size_t>(numel_of(s) + lead));
  }
  T* begin() { return data.data() + lead; }
  T& operator[](int64_t i) { return data[static_cast<size_t>(lead + i)]; }
  const T& operator[](int64_t i) const { return data[static_cast<size_t>(lead + i)]; }
  int64_t numel() const { return static_cast<int64_t>(data.size()) - lead; }
  View view() { return View{begin(), dtype_of<T>, sizes, contiguous_strides(sizes)}; }
};
// std::vector<bool> has no data(); flags are tested through their bytes.
struct BoolArray : Array<uint8_t> {
  using Array<uint8_t>::Array;
  View view() { return View{begin(), DType::kBool, sizes, contiguous_strides(sizes)}; }
};

inline View transposed(View v, int a, int b) {
  std::swap(v.sizes[a], v.sizes[b]);
  std::swap(v.strides[a], v.strides[b]);
  return v;
}

// Every `step`-th element along `dim`; a negative step runs backwards.
inline View sliced(View v, int dim, int64_t step) {
  const int64_t n = v.sizes[dim], kept = (n + std::abs(step) - 1) / std::abs(step);
  if (step < 0 && n > 0) v.data = v.at((n - 1) * v.strides[dim]);
  v.sizes[dim] = kept;
  v.strides[dim] *= step;
  return v;
}

template <class T>
void fill_normal(Array<T>& a, uint32_t seed, double scale = 1, double shift = 0) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  for (int64_t i = 0; i < a.numel(); ++i) a[i] = static_cast<T>(normal(engine) * scale + shift);
}

template <class T>
void fill_integers(Array<T>& a, uint32_t seed, int low, int high) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> uniform(low, high);
  for (int64_t i = 0; i < a.numel(); ++i) a[i] = static_cast<T>(uniform(engine));
}

// Normal draws in float, rounded to T.
template <class T>
std::vector<T> random_values(int64_t n, int seed) {
  std::mt19937 gen(seed);
  std::normal_distribution<float> normal;
  std::vector<T> v(n);
  for (T& x : v) x = T(normal(gen));
  return v;
}

// Elements of a view in logical order, as doubles.
inline std::vector<double> values_of(const View& v) {
  std::vector<double> result;
  const int64_t n = v.numel();
  for (int64_t i = 0; i < n; ++i) {
    int64_t rest = i, at = 0;
    for (int d = v.ndim() - 1; d >= 0; --d) at += rest % v.sizes[d] * v.strides[d], rest /= v.sizes[d];
    result.push_back(dispatch(v.dtype, [&]<class T>() { return static_cast<double>(v.as<T>()[at]); }));
  }
  return result;
}

// The lines of a view along `dim`, in logical order of the other dimensions.
inline std::vector<std::vector<double>> lines_of(const View& v, int dim) {
  View moved = v;
  if (v.ndim() == 0) moved.sizes = {1}, moved.strides = {1}, dim = 0;
  const int64_t n = moved.sizes[dim], stride = moved.strides[dim];
  moved.sizes.erase(dim), moved.strides.erase(dim);
  moved.sizes.push_back(n), moved.strides.push_back(stride);
  const std::vector<double> all = values_of(moved);
  std::vector<std::vector<double>> lines;
  for (size_t i = 0; n > 0 && i < all.size(); i += static_cast<size_t>(n))
    lines.emplace_back(all.begin() + static_cast<int64_t>(i), all.begin() + static_cast<int64_t>(i) + n);
  return lines;
}

// Near in the sense |a - b| <= tolerance * max(1, |b|); NaN equals NaN, infinities must agree.
inline void expect_near(double actual, double expected, double tolerance, const std::string& what) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(actual)) << what << ": " << actual << " is not NaN";
  } else if (std::isinf(expected)) {
    EXPECT_EQ(actual, expected) << what;
  } else {
    EXPECT_NEAR(actual, expected, tolerance * std::max(1.0, std::abs(expected))) << what;
  }
}

inline void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, double tolerance,
                        const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i)
    expect_near(actual[i], expected[i], tolerance, what + " at " + std::to_string(i));
}

// `run` fills `out`; the bytes must be the same on one thread and on two.
template <class T>
void expect_same_bits(Array<T>& out, const std::function<void()>& run) {
  const int before = num_threads();
  set_num_threads(1);
  run();
  const std::vector<T> one = out.data;
  std::fill(out.data.begin(), out.data.end(), T());
  set_num_threads(2);
  run();
  set_num_threads(before);
  if (one.empty()) return;
  EXPECT_EQ(std::memcmp(one.data(), out.data.data(), one.size() * sizeof(T)), 0) << "1 and 2 threads differ";
}

}  // namespace deepseek::testing
