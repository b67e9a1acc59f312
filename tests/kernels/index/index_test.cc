// Index kernels against plain loops; equal indices; 1 and 2 threads.
#include "kernels/index/index.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/index/embedding.h"
#include "kernels/index/masked.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

template <class T>
struct Array {
  std::vector<T> data;
  View view;
  explicit Array(Dims sizes) : data(std::max<int64_t>(numel_of(sizes), 1)) {
    view = {data.data(), dtype_of<T>, sizes, contiguous_strides(sizes)};
  }
  Array(const Array& o) : data(o.data), view(o.view) { view.data = data.data(); }
  Array& random(int seed, int64_t limit = 0) {
    std::mt19937 gen(seed);
    std::normal_distribution<float> normal;
    for (T& x : data) x = limit ? T(static_cast<int>(gen() % limit)) : T(normal(gen) * 3);
    return *this;
  }
};

View transposed(View v) {
  const int n = v.ndim();
  std::swap(v.sizes[n - 1], v.sizes[n - 2]);
  std::swap(v.strides[n - 1], v.strides[n - 2]);
  return v;
}

template <class T>
T& at(const View& v, std::initializer_list<int64_t> p) {
  int64_t offset = 0;
  int d = 0;
  for (int64_t i : p) offset += i * v.strides[d++];
  return v.as<T>()[offset];
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const IndexError& e) {
    return e.what();
  }
  return "no IndexError";
}

TEST(Index, CheckNamesTheFirstBadIndex) {
  Array<int64_t> i({2, 3});
  i.data = {0, 1, 2, -1, 3, 9};
  EXPECT_EQ(error_of([&] { check_indices("gather", i.view, 3, 0, false); }),
            "gather(): index -1 is out of bounds for dimension 0 with size 3");
  EXPECT_EQ(error_of([&] { check_indices("index", i.view, 3, 1, true); }),
            "index(): index 3 is out of bounds for dimension 1 with size 3");
  EXPECT_EQ(error_of([&] { check_indices("index", transposed(i.view), 4, 1, true); }),
            "index(): index 9 is out of bounds for dimension 1 with size 4");
  check_indices("index", i.view, 10, 0, true);
  Array<int64_t> many({100000});
  many.data[99999] = many.data[60000] = 5;
  many.data[60000] = 6;
  EXPECT_NE(error_of([&] { check_indices("index", many.view, 5, 0, true); }).find("index 6"), std::string::npos);
}

TEST(Index, GatherEveryDimStridedAndInt32) {
  const auto in = Array<float>({4, 5, 6}).random(1);
  for (int dim = 0; dim < 3; ++dim) {
    Dims sizes{3, 4, 5};
    sizes[dim] = 7;
    Array<int64_t> index(sizes);
    index.random(2, in.view.sizes[dim]);
    Array<int32_t> narrow(sizes);
    narrow.data.assign(index.data.begin(), index.data.end());
    for (const View& ids : {index.view, narrow.view}) {
      Array<float> out(sizes);
      gather(out.view, in.view, ids, dim);
      for (int64_t i = 0; i < sizes[0]; ++i)
        for (int64_t j = 0; j < sizes[1]; ++j)
          for (int64_t k = 0; k < sizes[2]; ++k) {
            const int64_t x = at<int64_t>(index.view, {i, j, k});
            const int64_t a = dim == 0 ? x : i, b = dim == 1 ? x : j, c = dim == 2 ? x : k;
            ASSERT_EQ(at<float>(out.view, {i, j, k}), at<float>(in.view, {a, b, c}));
          }
    }
  }
  const auto flat = Array<float>({5, 6}).random(3);
  Array<int64_t> index({6, 2});
  index.random(4, 5);
  Array<float> out({6, 2});
  gather(out.view, transposed(flat.view), index.view, 1);
  for (int64_t i = 0; i < 6; ++i)
    for (int64_t j = 0; j < 2; ++j)
      ASSERT_EQ(at<float>(out.view, {i, j}), at<float>(flat.view, {at<int64_t>(index.view, {i, j}), i}));
}

template <class T>
T combine(T a, T b, ScatterMode mode) {
  const auto x = static_cast<ComputeType<T>>(a), y = static_cast<ComputeType<T>>(b);
  switch (mode) {
    case ScatterMode::kSet:
      return b;
    case ScatterMode::kSum:
      return T(x + y);
    case ScatterMode::kProd:
      return T(x * y);
    case ScatterMode::kMin:
      return y < x ? b : a;
    default:
      return y > x ? b : a;
  }
}

template <class T>
void scatter_case(ScatterMode mode, int dim) {
  const Dims sizes{40, 50, 9};
  Dims table{40, 50, 9};
  table[dim] = 6;
  Array<int64_t> index(sizes);
  index.random(2, 6);
  const auto src = Array<T>(sizes).random(3);
  const auto start = Array<T>(table).random(4);
  Array<T> want(start);
  for (int64_t i = 0; i < sizes[0]; ++i)
    for (int64_t j = 0; j < sizes[1]; ++j)
      for (int64_t k = 0; k < sizes[2]; ++k) {
        const int64_t x = at<int64_t>(index.view, {i, j, k});
        T& to = at<T>(want.view, {dim == 0 ? x : i, dim == 1 ? x : j, dim == 2 ? x : k});
        to = combine(to, at<T>(src.view, {i, j, k}), mode);
      }
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    Array<T> got(start);
    scatter(got.view, index.view, src.view, dim, mode);
    ASSERT_EQ(0, std::memcmp(got.data.data(), want.data.data(), got.data.size() * sizeof(T)));
  }
}

TEST(Index, ScatterModesInIndexOrder) {
  for (int dim = 0; dim < 3; ++dim)
    for (ScatterMode mode :
         {ScatterMode::kSet, ScatterMode::kSum, ScatterMode::kProd, ScatterMode::kMin, ScatterMode::kMax}) {
      scatter_case<float>(mode, dim);
      scatter_case<double>(mode, dim);
      scatter_case<BFloat16>(mode, dim);
      scatter_case<int8_t>(mode, dim);
      scatter_case<int64_t>(mode, dim);
    }
}

TEST(Index, ScatterScalarZeroDimEmptyAndNan) {
  float value = 7;
  Array<float> out({3});
  Array<int64_t> index({2});
  index.data = {2, 0};
  scatter(out.view, index.view, {&value, DType::kFloat32, {2}, {0}}, 0, ScatterMode::kSet);
  EXPECT_EQ(out.data, (std::vector<float>{7, 0, 7}));
  Array<float> scalar(Dims{});
  Array<int64_t> zero(Dims{});
  scatter(scalar.view, zero.view, {&value, DType::kFloat32, {}, {}}, 0, ScatterMode::kSum);
  EXPECT_EQ(scalar.data[0], 7);
  scatter(out.view, {nullptr, DType::kInt64, {0}, {1}}, {nullptr, DType::kFloat32, {0}, {1}}, 0, ScatterMode::kSum);
  out.data[2] = std::numeric_limits<float>::quiet_NaN();
  scatter(out.view, index.view, {&value, DType::kFloat32, {2}, {0}}, 0, ScatterMode::kMax);
  EXPECT_TRUE(std::isnan(out.data[2]));
  value = NAN;
  scatter(out.view, index.view, {&value, DType::kFloat32, {2}, {0}}, 0, ScatterMode::kMin);
  EXPECT_TRUE(std::isnan(out.data[0]));
}

TEST(Index, SelectAddCopy) {
  const auto in = Array<float>({5, 6, 7}).random(1);
  Array<int64_t> index({4});
  index.data = {3, 0, 3, 4};
  for (int dim = 0; dim < 3; ++dim)
    for (const bool strided : {false, true}) {
      const View from = strided ? transposed(in.view) : in.view;
      Dims sizes = from.sizes;
      sizes[dim] = 4;
      Array<float> out(sizes);
      index_select(out.view, from, dim, index.view);
      Array<float> sum(from.sizes), want(from.sizes), copied(from.sizes);
      index_add(sum.view, dim, index.view, out.view, -2.0);
      index_copy(copied.view, dim, index.view, out.view);
      for (int64_t i = 0; i < sizes[0]; ++i)
        for (int64_t j = 0; j < sizes[1]; ++j)
          for (int64_t k = 0; k < sizes[2]; ++k) {
            int64_t p[3] = {i, j, k};
            p[dim] = index.data[p[dim]];
            const float x = at<float>(from, {p[0], p[1], p[2]});
            ASSERT_EQ(at<float>(out.view, {i, j, k}), x);
            ASSERT_EQ(at<float>(copied.view, {p[0], p[1], p[2]}), x);
            at<float>(want.view, {p[0], p[1], p[2]}) += -2.0f * x;
          }
      ASSERT_EQ(sum.data, want.data);
    }
}

// x[i0, :, i1] and x[i0] with negative, repeated and broadcast indices.
TEST(Index, GetAndPutWithPlans) {
  const auto x = Array<float>({5, 6, 7}).random(1);
  Array<int64_t> i0({4, 1}), i1({3});
  i0.data = {0, -1, 2, 2};
  i1.data = {6, -7, 3};
  // Result [4, 3, 6]: index dimensions first, as they are separated by a slice.
  IndexPlan apart{{4, 3, 6}, {0, 0, 7}, {}, {42, 1}, {5, 7}};
  apart.indices = {{i0.data.data(), DType::kInt64, {4, 3, 6}, {1, 0, 0}},
                   {i1.data.data(), DType::kInt64, {4, 3, 6}, {0, 1, 0}}};
  IndexPlan rows{{4, 6, 7}, {0, 7, 1}, {}, {42}, {5}};
  rows.indices = {{i0.data.data(), DType::kInt64, {4, 6, 7}, {1, 0, 0}}};
  for (const IndexPlan& plan : {apart, rows}) {
    Array<float> out(plan.out_sizes);
    index_get(out.view, x.view.data, plan);
    Array<float> want(x), values(plan.out_sizes);
    values.random(5);
    for (int64_t a = 0; a < plan.out_sizes[0]; ++a)
      for (int64_t b = 0; b < plan.out_sizes[1]; ++b)
        for (int64_t c = 0; c < plan.out_sizes[2]; ++c) {
          const int64_t r = (i0.data[a] + 5) % 5;
          const bool split = plan.indices.size() == 2;
          const int64_t offset = split ? r * 42 + c * 7 + (i1.data[b] + 7) % 7 : r * 42 + b * 7 + c;
          ASSERT_EQ(at<float>(out.view, {a, b, c}), x.data[offset]);
          want.data[offset] += at<float>(values.view, {a, b, c});
        }
    Array<float> got(x);
    index_put(got.view.data, values.view, plan, true);
    EXPECT_EQ(got.data, want.data);
    Array<float> set(x);
    float seven = 7;
    index_put(set.view.data, {&seven, DType::kFloat32, plan.out_sizes, {0, 0, 0}}, plan, false);
    Array<float> again(plan.out_sizes);
    index_get(again.view, set.view.data, plan);
    for (float v : again.data) EXPECT_EQ(v, 7);
  }
}

TEST(Index, PutIsTheSameForAnyThreadCount) {
  const int64_t n = 50000, rows = 37, d = 8;
  Array<int64_t> ids({n});
  ids.random(1, rows);
  Array<float> values({n, d});
  values.random(2);
  IndexPlan plan{{n, d}, {0, 1}, {{ids.data.data(), DType::kInt64, {n, d}, {1, 0}}}, {d}, {rows}};
  for (const bool accumulate : {true, false}) {
    Array<float> want({rows, d});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < d; ++j) {
        float& to = want.data[ids.data[i] * d + j];
        to = accumulate ? to + values.data[i * d + j] : values.data[i * d + j];
      }
    for (int threads : {1, 2, 5}) {
      set_num_threads(threads);
      Array<float> got({rows, d});
      index_put(got.view.data, values.view, plan, accumulate);
      ASSERT_EQ(got.data, want.data) << threads << " threads";
    }
  }
}

TEST(Masked, NonzeroSelectScatter) {
  for (const int64_t rows : {0, 3, 70}) {
    Array<uint8_t> m({rows, 500});
    m.random(1, 2);
    const View mask{m.data.data(), DType::kBool, {rows, 500}, {500, 1}};
    const auto x = Array<float>({rows, 500}).random(2);
    for (const bool flip : {false, true}) {
      const View mk = flip ? transposed(mask) : mask, xv = flip ? transposed(x.view) : x.view;
      std::vector<int64_t> want;
      std::vector<float> picked;
      for (int64_t i = 0; i < mk.sizes[0]; ++i)
        for (int64_t j = 0; j < mk.sizes[1]; ++j)
          if (at<uint8_t>(mk, {i, j})) {
            want.insert(want.end(), {i, j});
            picked.push_back(at<float>(xv, {i, j}));
          }
      const int64_t count = count_nonzero(mk);
      ASSERT_EQ(count, static_cast<int64_t>(picked.size()));
      Array<int64_t> positions({count, 2});
      nonzero(positions.view, mk);
      Array<float> out({count});
      masked_select(out.view, xv, mk);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(positions.data[2 * i], want[2 * i]);
        ASSERT_EQ(positions.data[2 * i + 1], want[2 * i + 1]);
        ASSERT_EQ(out.data[i], picked[i]);
      }
      Array<float> target(mk.sizes);
      masked_scatter(target.view, mk, out.view);
      for (int64_t i = 0; i < mk.sizes[0]; ++i)
        for (int64_t j = 0; j < mk.sizes[1]; ++j)
          ASSERT_EQ(at<float>(target.view, {i, j}), at<uint8_t>(mk, {i, j}) ? at<float>(xv, {i, j}) : 0.0f);
    }
  }
  Array<float> f({4});
  f.data = {0.0f, -0.0f, NAN, 1.0f};
  EXPECT_EQ(count_nonzero(f.view), 2);
  Array<BFloat16> b({2});
  b.data = {BFloat16(-0.0f), BFloat16(2.0f)};
  EXPECT_EQ(count_nonzero(b.view), 1);
  Array<float> scalar(Dims{});
  scalar.data[0] = 3;
  EXPECT_EQ(count_nonzero(scalar.view), 1);
}

TEST(Index, Bincount) {
  Array<int64_t> ids({5}), out({4});
  ids.data = {1, 3, 1, 1, 0};
  bincount(out.view, ids.view);
  EXPECT_EQ(out.data, (std::vector<int64_t>{1, 3, 0, 1}));
  Array<double> w({5}), sums({4});
  w.data = {0.5, 2, 1, 0.25, 8};
  bincount(sums.view, ids.view, &w.view);
  EXPECT_EQ(sums.data, (std::vector<double>{8, 1.75, 0, 2}));
}

template <class T>
void embedding_case() {
  for (const int64_t d : {1, 5, 64, 600}) {
    const int64_t rows = 11, n = 900;
    const auto weight = Array<T>({rows, d}).random(1);
    Array<int32_t> ids({30, 30});
    ids.random(2, rows - 1);  // the last row stays unused
    Array<T> out({n, d});
    embedding(out.view, weight.view, ids.view);
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(0, std::memcmp(&out.data[i * d], &weight.data[ids.data[i] * d], d * sizeof(T)));
    const auto grad = Array<T>({n, d}).random(3);
    for (const bool by_freq : {false, true}) {
      std::vector<ComputeType<T>> want(rows * d, 0);
      std::vector<int> counts(rows, 0);
      for (int64_t i = 0; i < n; ++i) {
        if (ids.data[i] == 4) continue;
        ++counts[ids.data[i]];
        for (int64_t j = 0; j < d; ++j) want[ids.data[i] * d + j] += static_cast<ComputeType<T>>(grad.data[i * d + j]);
      }
      for (int threads : {1, 2, 5}) {
        set_num_threads(threads);
        Array<T> got({rows, d});
        std::fill(got.data.begin(), got.data.end(), T(9));
        embedding_backward(got.view, grad.view, ids.view, 4, by_freq);
        for (int64_t i = 0; i < rows * d; ++i) {
          const ComputeType<T> scale =
              by_freq && counts[i / d] ? ComputeType<T>(1) / static_cast<ComputeType<T>>(counts[i / d]) : 1;
          ASSERT_EQ(static_cast<double>(got.data[i]), static_cast<double>(T(want[i] * scale)));
        }
        Array<T> sum = Array<T>({rows, d}).random(5);
        const std::vector<T> old(sum.data.begin(), sum.data.end());
        embedding_backward(sum.view, grad.view, ids.view, 4, by_freq, true);
        for (int64_t i = 0; i < rows * d; ++i) {
          using C = ComputeType<T>;
          const T expected(static_cast<C>(old[i]) + static_cast<C>(got.data[i]));
          ASSERT_EQ(0, std::memcmp(&sum.data[i], &expected, sizeof(T))) << i;
        }
      }
    }
  }
}

TEST(Embedding, ForwardAndBackward) {
  embedding_case<float>();
  embedding_case<double>();
  embedding_case<BFloat16>();
}

}  // namespace
}  // namespace deepseek::kernels
