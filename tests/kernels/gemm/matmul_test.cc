// matmul: values against a naive sum, and the determinism rule (bits depend on row, column and K only), on every SIMD
// target.
#include "kernels/gemm/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "hwy/targets.h"
#include "kernels/gemm/matmul_bf16.h"
#include "kernels/gemm/matmul_float.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

// The SIMD targets the kernels are built for and this machine has.
std::vector<int64_t> targets() {
  std::vector<int64_t> all;
  for (const int64_t t : {HWY_AVX2, HWY_AVX3})
    if (hwy::SupportedTargets() & t) all.push_back(t);
  return all;
}

// Owns memory; transposed storage when asked.
template <class T>
struct Matrix {
  std::vector<T> data;
  View view;

  Matrix(Dims sizes, bool transposed, int seed) : data(std::max<int64_t>(numel_of(sizes), 1)) {
    std::mt19937 gen(seed);
    std::normal_distribution<float> normal;
    for (auto& x : data) x = make(normal(gen));
    Dims stored = sizes;
    const int n = sizes.size();
    if (transposed) std::swap(stored[n - 1], stored[n - 2]);
    Dims strides = contiguous_strides(stored);
    if (transposed) std::swap(strides[n - 1], strides[n - 2]);
    view = {data.data(), dtype_of<T>, sizes, strides};
  }
  static T make(float x) {
    if constexpr (std::is_same_v<T, bool>)
      return x > 0.8f;
    else if constexpr (std::is_integral_v<T>)
      return static_cast<T>(x * 40);
    else
      return T(x);
  }
  T at(int64_t b, int64_t i, int64_t j) const {
    const Dims& s = view.strides;
    const int n = s.size();
    return data[(n == 3 ? b * s[0] : 0) + i * s[n - 2] + j * s[n - 1]];
  }
};
// std::vector<bool> has no data().
template <>
Matrix<bool>::Matrix(Dims, bool, int) = delete;

template <class T>
T expected(const Matrix<T>& a, const Matrix<T>& b, int64_t batch, int64_t i, int64_t j) {
  const int64_t k_size = a.view.sizes.back();
  using C = ComputeType<T>;
  if constexpr (std::is_integral_v<T>) {
    uint64_t sum = 0;
    for (int64_t k = 0; k < k_size; ++k)
      sum += static_cast<uint64_t>(a.at(batch, i, k)) * static_cast<uint64_t>(b.at(batch, k, j));
    return static_cast<T>(sum);
  } else {
    C sum = 0;
    for (int64_t k0 = 0; k0 < k_size; k0 += kGemmBlockK) {
      C part = 0;
      for (int64_t k = k0; k < std::min(k_size, k0 + kGemmBlockK); ++k)
        part = std::fma(static_cast<C>(a.at(batch, i, k)), static_cast<C>(b.at(batch, k, j)), part);
      sum = k0 ? sum + part : part;
    }
    return T(sum);
  }
}

template <class T>
bool same_bits(const T* a, const T* b, int64_t n) {
  return std::memcmp(a, b, n * sizeof(T)) == 0;
}

// bf16 dot products round pairs: equal up to a bf16 step of the sum of magnitudes.
template <class T>
bool close(T got, T want, int64_t k) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return std::abs(float(got) - float(want)) <= 0.008f * std::abs(float(want)) + 1e-4f * std::sqrt(float(k));
  else
    return std::memcmp(&got, &want, sizeof(T)) == 0;
}

const Dims kShapes[] = {{1, 1, 1},     {1, 7, 1},      {2, 3, 5},     {6, 64, 64},    {7, 65, 63},
                        {1, 100, 129}, {5, 1, 33},     {31, 33, 1},   {40, 130, 70},  {64, 511, 16},
                        {3, 512, 17},  {9, 513, 100},  {1, 1500, 70}, {35, 1027, 66}, {8, 31, 16},
                        {16, 545, 33}, {47, 1027, 50}, {48, 70, 34},  {49, 40, 16},   {3, 17, 4}};

template <class T>
class MatmulTest : public testing::Test {};
using Types = testing::Types<float, double, Half, BFloat16, int8_t, uint8_t, int16_t, int32_t, int64_t>;
TYPED_TEST_SUITE(MatmulTest, Types);

template <class T>
void check_shapes() {
  for (const Dims& s : kShapes)
    for (int layout = 0; layout < 4; ++layout) {
      const int64_t m = s[0], k = s[1], n = s[2];
      const Matrix<T> a({m, k}, layout & 1, 1), b({k, n}, layout & 2, 2);
      Matrix<T> c({m, n}, false, 3);
      matmul(c.view, a.view, b.view);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j)
          ASSERT_TRUE(close(c.at(0, i, j), expected(a, b, 0, i, j), k))
              << s << " layout " << layout << " at " << i << "," << j << ": " << +c.at(0, i, j) << " for "
              << +expected(a, b, 0, i, j);
    }
}

TYPED_TEST(MatmulTest, ValuesOnEveryTarget) {
  for (const int64_t target : targets()) {
    hwy::SetSupportedTargetsForTest(target);
    check_shapes<TypeParam>();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TYPED_TEST(MatmulTest, RowsDoNotDependOnBatchThreadsOrLayout) {
  using T = TypeParam;
  for (const Dims& kn : {Dims{37, 50}, Dims{512, 64}, Dims{1100, 130}, Dims{64, 1}}) {
    const int64_t k = kn[0], n = kn[1], rows = 70;
    const Matrix<T> a({rows, k}, false, 1), b({k, n}, false, 2);
    Matrix<T> bt({k, n}, true, 2);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < n; ++j) bt.data[j * k + i] = b.at(0, i, j);
    Matrix<T> want({rows, n}, false, 3);
    set_num_threads(1);
    matmul(want.view, a.view, b.view);
    for (int threads : {1, 2})
      for (int64_t m : {1, 2, 5, 6, 7, 8, 9, 12, 17, 30, 31, 36, 37, 48, 49, 64, 70})
        for (const Matrix<T>* right : {&b, static_cast<const Matrix<T>*>(&bt)})
          for (int64_t first : {int64_t{0}, rows - m}) {
            set_num_threads(threads);
            View part = a.view;
            part.sizes[0] = m;
            part.data = part.at(first * k);
            Matrix<T> got({m, n}, false, 4);
            matmul(got.view, part, right->view);
            ASSERT_TRUE(same_bits(got.data.data(), want.data.data() + first * n, m * n))
                << "K " << k << " N " << n << " M " << m << " threads " << threads << " transposed " << (right == &bt);
          }
  }
  set_num_threads(2);
}

// A batch of single rows that lie apart, with one second matrix for all, is one product of these rows.
TYPED_TEST(MatmulTest, AccumulatesIntoRowsThatLieApart) {
  using T = TypeParam;
  const int64_t batch = 7, k = 40, n = 21;
  const Matrix<T> a({batch, 1, k}, false, 1), b({k, n}, false, 2), before({batch, 3, n}, false, 3);
  for (const bool with_bias : {false, true}) {
    Matrix<T> c = before;
    const Matrix<T> bias({n, 1}, false, 5);
    const View vbias{bias.view.data, bias.view.dtype, {n}, {1}};
    const View rows{c.data.data() + n, c.view.dtype, {batch, 1, n}, {3 * n, n, 1}};
    matmul(rows, a.view, {b.view.data, b.view.dtype, {batch, k, n}, {0, n, 1}}, with_bias ? &vbias : nullptr, true);
    Matrix<T> want = before;
    for (int64_t i = 0; i < batch; ++i) {
      const View one{want.data.data() + (3 * i + 1) * n, want.view.dtype, {1, n}, {n, 1}};
      matmul(one, {a.view.at(i * k), a.view.dtype, {1, k}, {k, 1}}, b.view, with_bias ? &vbias : nullptr, true);
    }
    EXPECT_TRUE(same_bits(c.data.data(), want.data.data(), batch * 3 * n));
  }
}

TYPED_TEST(MatmulTest, BatchBroadcastBiasAndAccumulate) {
  using T = TypeParam;
  const int64_t batch = 5, m = 9, k = 40, n = 21;
  const Matrix<T> a({batch, m, k}, false, 1), b({batch, k, n}, true, 2), bias({n, 1}, false, 5);
  for (const bool share_a : {false, true})
    for (const bool share_b : {false, true})
      for (const bool with_bias : {false, true})
        for (const bool accumulate : {false, true}) {
          View va = a.view, vb = b.view;
          if (share_a) va.strides[0] = 0;
          if (share_b) vb.strides[0] = 0;
          const View vbias{bias.view.data, bias.view.dtype, {n}, {1}};
          Matrix<T> c({batch, m, n}, false, 7);
          const Matrix<T> before = c;
          matmul(c.view, va, vb, with_bias ? &vbias : nullptr, accumulate);
          for (int64_t i = 0; i < batch; ++i) {
            const View one_a{va.at(i * va.strides[0]), va.dtype, {m, k}, {va.strides[1], va.strides[2]}};
            const View one_b{vb.at(i * vb.strides[0]), vb.dtype, {k, n}, {vb.strides[1], vb.strides[2]}};
            std::vector<T> one(before.data.begin() + i * m * n, before.data.begin() + (i + 1) * m * n);
            matmul({one.data(), dtype_of<T>, {m, n}, {n, 1}}, one_a, one_b, with_bias ? &vbias : nullptr, accumulate);
            ASSERT_TRUE(same_bits(one.data(), c.data.data() + i * m * n, m * n));
          }
          // The value itself, in double, with loose tolerance: catches a bias or old value that went missing.
          for (int64_t j = 0; j < n; ++j) {
            if constexpr (!std::is_integral_v<T>) {
              double want =
                  (with_bias ? double(float(bias.data[j])) : 0) + (accumulate ? double(float(before.data[j])) : 0);
              for (int64_t p = 0; p < k; ++p) want += double(float(a.at(0, 0, p))) * double(float(b.at(0, p, j)));
              ASSERT_NEAR(double(float(c.data[j])), want, 0.01 * std::abs(want) + 0.03);
            } else {
              uint64_t want = (with_bias ? bias.data[j] : 0) + (accumulate ? before.data[j] : 0);
              want += static_cast<uint64_t>(expected(a, b, 0, 0, j));
              ASSERT_EQ(c.data[j], static_cast<T>(want));
            }
          }
        }
}

TYPED_TEST(MatmulTest, EmptyAndNoK) {
  using T = TypeParam;
  Matrix<T> c({3, 4}, false, 1), bias({4, 1}, false, 2);
  const Matrix<T> before = c;
  const View a{nullptr, dtype_of<T>, {3, 0}, {1, 1}}, b{nullptr, dtype_of<T>, {0, 4}, {4, 1}};
  matmul(c.view, a, b, nullptr, true);
  EXPECT_TRUE(same_bits(c.data.data(), before.data.data(), 12));
  const View vbias{bias.view.data, bias.view.dtype, {4}, {1}};
  matmul(c.view, a, b, &vbias);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(c.data.data() + 4 * i, bias.data.data(), 4));
  matmul(c.view, a, b);
  for (T x : c.data) EXPECT_EQ(float(x), 0.0f);
  const View empty{nullptr, dtype_of<T>, {0, 4}, {4, 1}}, a0{nullptr, dtype_of<T>, {0, 3}, {3, 1}};
  const Matrix<T> b0({3, 4}, false, 1);
  matmul(empty, a0, b0.view);
}

TEST(Matmul, FourDimsWithGapsAndNegativeStrides) {
  const Matrix<float> a({2 * 3, 8, 20}, false, 1), b({3, 20, 10}, false, 2);
  // a: every second row, backwards; b: shared by the outer batch dimension; out: rows 16 apart.
  const View va{const_cast<float*>(a.data.data()) + 7 * 20, DType::kFloat32, {2, 3, 4, 20}, {480, 160, -40, 1}};
  const View vb{const_cast<float*>(b.data.data()), DType::kFloat32, {2, 3, 20, 10}, {0, 200, 10, 1}};
  std::vector<float> out(2 * 3 * 4 * 16, -1.0f);
  matmul({out.data(), DType::kFloat32, {2, 3, 4, 10}, {192, 64, 16, 1}}, va, vb);
  for (int x = 0; x < 2; ++x)
    for (int y = 0; y < 3; ++y)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 16; ++j) {
          float want = j < 10 ? 0.0f : -1.0f;
          for (int k = 0; j < 10 && k < 20; ++k) want = std::fma(a.at(x * 3 + y, 7 - 2 * i, k), b.at(y, k, j), want);
          ASSERT_EQ(out[x * 192 + y * 64 + i * 16 + j], want);
        }
}

TEST(Matmul, BoolIsAnOrOfAnds) {
  bool a[6] = {true, false, true, false, false, true}, b[6] = {false, true, false, false, true, false}, c[4];
  matmul({c, DType::kBool, {2, 2}, {2, 1}}, {a, DType::kBool, {2, 3}, {3, 1}}, {b, DType::kBool, {3, 2}, {2, 1}});
  EXPECT_TRUE(c[0] && c[1] && c[2] && !c[3]);
}

TEST(Matmul, NanAndInfinitySpread) {
  for (const int64_t m : {1, 40}) {
    Matrix<float> a({m, 20}, false, 1), b({20, 5}, false, 2), c({m, 5}, false, 3);
    a.data[3] = NAN;
    b.data[2] = INFINITY;
    matmul(c.view, a.view, b.view);
    for (int j = 0; j < 5; ++j) EXPECT_TRUE(std::isnan(c.data[j]));
    if (m == 1) continue;
    EXPECT_TRUE(std::isinf(c.data[5 + 2]));
    EXPECT_TRUE(std::isfinite(c.data[5]));
  }
}

TEST(Matmul, TargetsGiveTheSameBits) {
  const Matrix<float> a({33, 700}, true, 1), b({700, 90}, false, 2);
  std::vector<std::vector<float>> results;
  for (const int64_t target : targets()) {
    hwy::SetSupportedTargetsForTest(target);
    Matrix<float> c({33, 90}, false, 3);
    matmul(c.view, a.view, b.view);
    results.push_back(c.data);
  }
  hwy::SetSupportedTargetsForTest(0);
  for (const auto& r : results) EXPECT_TRUE(same_bits(r.data(), results[0].data(), 33 * 90));
}

TEST(Matmul, Bf16KernelAgreesWithItsTwin) {
  if (!cpu_features().avx512_bf16) GTEST_SKIP() << "no AVX512_BF16";
  for (const Dims& s : kShapes)
    for (int layout = 0; layout < 4; ++layout) {
      const int64_t m = s[0], k = s[1], n = s[2];
      const Matrix<BFloat16> a({m, k}, layout & 1, 1), b({k, n}, layout & 2, 2);
      std::vector<float> fast(m * n), twin(m * n);
      Gemm g{DType::kBFloat16,
             m,
             n,
             k,
             a.data.data(),
             a.view.strides[0],
             a.view.strides[1],
             b.data.data(),
             b.view.strides[0],
             b.view.strides[1],
             fast.data(),
             n};
      gemm_bf16(g);
      g.c = twin.data();
      gemm_float(g);
      for (int64_t i = 0; i < m * n; ++i) ASSERT_NEAR(fast[i], twin[i], 1e-5f * k) << s << " layout " << layout;
    }
}

// A result in bf16 has the bits of the float result of the same product, rounded: with and without a bias, of one block
// of k and of several, where the kernel rounds and where it does not.
TEST(Matmul, Bf16ResultIsTheFloatOneRounded) {
  for (const Dims& s : {Dims{49, 512, 64}, Dims{50, 7, 65}, Dims{97, 513, 130}, Dims{48, 600, 70}, Dims{130, 1030, 515},
                        Dims{970, 30, 1}, Dims{961, 520, 17}, Dims{60, 0, 9}})
    for (int layout = 0; layout < 4; ++layout)
      for (const char* start : {"nothing", "bias", "matrix", "column", "old"}) {
        const int64_t m = s[0], k = s[1], n = s[2];
        const Matrix<BFloat16> a({m, k}, layout & 1, 1), b({k, n}, layout & 2, 2), narrow({m, n}, false, 3);
        std::vector<float> wide(narrow.data.begin(), narrow.data.end());
        Matrix<BFloat16> got = narrow;
        Matrix<float> want({m, n}, false, 4);
        got.view.data = got.data.data();
        if (*start == 'o') want.data = wide;
        View row = narrow.view, wide_row{wide.data(), DType::kFloat32, {m, n}, {n, 1}};
        if (*start == 'b') row.sizes = wide_row.sizes = {n}, row.strides = wide_row.strides = {1};
        if (*start == 'c') row.strides = wide_row.strides = {1, 0};
        const bool bias = *start == 'b' || *start == 'm' || *start == 'c';
        matmul(got.view, a.view, b.view, bias ? &row : nullptr, *start == 'o');
        matmul(want.view, a.view, b.view, bias ? &wide_row : nullptr, *start == 'o');
        for (int64_t i = 0; i < m * n; ++i)
          ASSERT_EQ(got.data[i].bits, BFloat16(want.data[i]).bits) << s << " layout " << layout << " " << start;
      }
}

TEST(Matmul, Bf16ResultKeepsNanAndInfinity) {
  Matrix<BFloat16> a({64, 20}, false, 1), b({20, 70}, false, 2), c({64, 70}, false, 3);
  a.data[5 * 20 + 3] = BFloat16(NAN);
  a.data[7 * 20 + 3] = BFloat16(INFINITY);
  matmul(c.view, a.view, b.view);
  for (int64_t j = 0; j < 70; ++j) {
    EXPECT_TRUE(std::isnan(float(c.at(0, 5, j))));
    EXPECT_TRUE(std::isinf(float(c.at(0, 7, j))));
    EXPECT_TRUE(std::isfinite(float(c.at(0, 6, j))));
  }
}

TEST(Matmul, Float8IsRefused) {
  uint8_t x[1] = {};
  const View v{x, DType::kFloat8E4M3, {1, 1}, {1, 1}};
  EXPECT_THROW(matmul(v, v, v), NotImplementedError);
}

// Each step has the bits of the pointwise kernel on the whole result, whatever the stretches and threads.
template <class T>
void check_epilogue(int64_t m, int64_t n, int64_t k) {
  SCOPED_TRACE(::testing::Message() << name_of(dtype_of<T>) << " " << m << "x" << k << "x" << n);
  const Matrix<T> a({m, k}, false, 1), b({k, n}, true, 2), bias({1, n}, false, 3), other({m, n}, true, 4);
  Matrix<T> want({m, n}, false, 5), got({m, n}, false, 6);
  const View vbias{bias.view.data, dtype_of<T>, {n}, {1}};
  matmul(want.view, a.view, b.view, &vbias);
  const View unary[] = {want.view}, binary[] = {want.view, other.view};
  pointwise(Pointwise::kGeluTanh, dtype_of<T>, want.view, unary);
  pointwise(Pointwise::kMul, dtype_of<T>, want.view, binary);
  const Epilogue steps[] = {{Pointwise::kGeluTanh}, {Pointwise::kMul, other.view}};
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    matmul(got.view, a.view, b.view, &vbias, false, steps);
    EXPECT_EQ(std::memcmp(got.data.data(), want.data.data(), static_cast<size_t>(m * n) * sizeof(T)), 0) << threads;
  }
}

TEST(Matmul, EpilogueHasTheBitsOfSeparateSteps) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                {1, 1030, 67},
                                {7, 513, 600},
                                {70, 1100, 33},
                                {130, 512, 64},
                                {3, 5, 0},
                                {0, 4, 3}}) {
    check_epilogue<float>(m, n, k);
    check_epilogue<double>(m, n, k);
    check_epilogue<BFloat16>(m, n, k);
    check_epilogue<Half>(m, n, k);
  }
}

TEST(Matmul, EpilogueRefusesBatchesAndOtherSizes) {
  Matrix<float> a({2, 3, 4}, false, 1), b({2, 4, 5}, false, 2), c({2, 3, 5}, false, 3), one({3, 5}, false, 4);
  const Epilogue relu[] = {{Pointwise::kRelu}};
  EXPECT_THROW(matmul(c.view, a.view, b.view, nullptr, false, relu), Error);
  Matrix<float> x({3, 4}, false, 1), w({4, 6}, false, 2), y({3, 6}, false, 3);
  const Epilogue add[] = {{Pointwise::kAdd, one.view}};
  EXPECT_THROW(matmul(y.view, x.view, w.view, nullptr, false, add), Error);
}

}  // namespace
}  // namespace deepseek::kernels
