#include "kernels/reduce/scan.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

constexpr double kInf = std::numeric_limits<double>::infinity();

const Dims kShapes[] = {{}, {1}, {9}, {1000}, {0}, {4, 0}, {0, 4}, {5, 300}, {300, 5}, {300, 40}, {3, 17, 6}};

using ScanFn = void (*)(const View&, const View&, int);

template <class Out>
void check(ScanFn scan, double (*step)(double, double), double first, const View& in, int dim, double tolerance) {
  Array<Out> out(in.sizes);
  expect_same_bits<Out>(out, [&] { scan(out.view(), in, dim); });
  std::vector<std::vector<double>> lines = lines_of(in, dim), results = lines_of(out.view(), dim);
  ASSERT_EQ(lines.size(), results.size());
  for (size_t l = 0; l < lines.size(); ++l) {
    double total = first;
    for (double& v : lines[l]) total = step(total, v), v = total;
    std::ostringstream what;
    what << "scan of " << in.dtype << in.sizes << " dim " << dim << " line " << l;
    expect_near(results[l], lines[l], tolerance, what.str());
  }
}

template <class In, class Out>
void check_shapes(ScanFn scan, double (*step)(double, double), double first, double tolerance, bool small = false) {
  for (const Dims& shape : kShapes)
    for (int dim = 0; dim < std::max(1, shape.size()); ++dim) {
      Array<In> x(shape, 1);
      if constexpr (std::is_integral_v<In>)
        fill_integers(x, 2, small ? 1 : -9, small ? 1 : 9);
      else
        fill_normal(x, 2, small ? 0.01 : 1, small ? 1 : 0);
      check<Out>(scan, step, first, x.view(), dim, tolerance);
      if (shape.size() == 0) continue;
      check<Out>(scan, step, first, sliced(x.view(), dim, -2), dim, tolerance);
      check<Out>(scan, step, first, transposed(x.view(), 0, shape.size() - 1), dim, tolerance);
    }
}

double add(double a, double b) { return a + b; }
double multiply(double a, double b) { return a * b; }
double log_add(double a, double b) {
  const double high = std::max(a, b);
  return std::isinf(high) ? high : high + std::log(std::exp(a - high) + std::exp(b - high));
}

TEST(Scan, Sums) {
  check_shapes<float, float>(cumsum, add, 0, 1e-5);
  check_shapes<double, double>(cumsum, add, 0, 1e-13);
  check_shapes<int8_t, int64_t>(cumsum, add, 0, 0);
  check_shapes<int32_t, float>(cumsum, add, 0, 0);
  check_shapes<BFloat16, float>(cumsum, add, 0, 1e-5);
  check_shapes<Half, Half>(cumsum, add, 0, 1e-3);
}

TEST(Scan, ProductsAndLogSums) {
  check_shapes<float, float>(cumprod, multiply, 1, 1e-5, true);
  check_shapes<int16_t, int64_t>(cumprod, multiply, 1, 0, true);
  check_shapes<double, double>(logcumsumexp, log_add, -kInf, 1e-13);
  check_shapes<float, float>(logcumsumexp, log_add, -kInf, 1e-6);
}

TEST(Scan, LogSumOfInfinities) {
  Array<float> x({5}), y({5});
  const float inf = static_cast<float>(kInf);
  x.data = {-inf, -inf, 2, inf, -inf};
  logcumsumexp(y.view(), x.view(), 0);
  EXPECT_EQ(y.data, (std::vector<float>{-inf, -inf, 2, inf, inf}));
  x.data = {1, std::nanf(""), 2, -inf, inf};
  logcumsumexp(y.view(), x.view(), 0);
  EXPECT_EQ(y[0], 1);
  for (int i = 1; i < 5; ++i) EXPECT_TRUE(std::isnan(y[i]));
}

TEST(Scan, InPlace) {
  Array<float> x({2, 3});
  x.data = {1, 2, 3, 4, 5, 6};
  cumsum(x.view(), x.view(), 0);
  EXPECT_EQ(x.data, (std::vector<float>{1, 2, 3, 5, 7, 9}));
}

TEST(Scan, Int64Wraps) {
  Array<int64_t> x({2}), y({2});
  x.data = {std::numeric_limits<int64_t>::max(), 2};
  cumsum(y.view(), x.view(), 0);
  EXPECT_EQ(y[1], std::numeric_limits<int64_t>::min() + 1);
  cumprod(y.view(), x.view(), 0);
  EXPECT_EQ(y[1], -2);
}

template <class T>
void check_extreme(const View& in, int dim, bool is_max) {
  Array<T> values(in.sizes);
  Array<int64_t> indices(in.sizes);
  auto run = [&] { (is_max ? cummax : cummin)(values.view(), indices.view(), in, dim); };
  expect_same_bits<int64_t>(indices, run);
  const auto lines = lines_of(in, dim), got = lines_of(values.view(), dim), at = lines_of(indices.view(), dim);
  for (size_t l = 0; l < lines.size(); ++l) {
    size_t best = 0;
    for (size_t i = 0; i < lines[l].size(); ++i) {
      const double v = lines[l][i], b = lines[l][best];
      if (std::isnan(v) || (!std::isnan(b) && (is_max ? v >= b : v <= b))) best = i;
      ASSERT_EQ(at[l][i], static_cast<double>(best));
      expect_near(got[l][i], lines[l][best], 0, "running extreme");
    }
  }
}

TEST(Scan, Extremes) {
  for (const Dims& shape : kShapes)
    for (int dim = 0; dim < std::max(1, shape.size()); ++dim)
      for (bool is_max : {true, false}) {
        Array<float> x(shape, 1);
        fill_integers(x, 3, -9, 9);
        check_extreme<float>(x.view(), dim, is_max);
        for (int64_t i = 3; i < x.numel(); i += 7) x[i] = std::nanf("");
        check_extreme<float>(x.view(), dim, is_max);
        Array<uint8_t> u(shape);
        fill_integers(u, 3, 0, 200);
        check_extreme<uint8_t>(u.view(), dim, is_max);
        Array<BFloat16> b(shape);
        fill_normal(b, 3);
        check_extreme<BFloat16>(b.view(), dim, is_max);
      }
}

}  // namespace
}  // namespace deepseek::kernels
