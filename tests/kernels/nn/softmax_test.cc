#include "kernels/nn/softmax.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

const Dims kShapes[] = {{},      {0},     {3, 0},    {0, 3},    {1},       {17},        {5000},
                        {6, 33}, {33, 6}, {2, 9001}, {9001, 2}, {40, 300}, {5, 19, 18}, {3, 4, 5, 6}};

enum class Fn { kSoftmax, kLogSoftmax };

std::vector<double> forward_reference(Fn fn, const std::vector<double>& x) {
  double high = -INFINITY, sum = 0;
  for (double v : x) high = std::isnan(v) || v > high ? v : high;
  std::vector<double> y;
  for (double v : x) sum += std::exp(v - high);
  for (double v : x) y.push_back(fn == Fn::kSoftmax ? std::exp(v - high) / sum : v - high - std::log(sum));
  return y;
}

template <class In, class T>
void check(Fn fn, const View& in, int dim, double tolerance) {
  Array<T> y(in.sizes), dx(in.sizes), g(in.sizes, 1);
  expect_same_bits<T>(y, [&] { (fn == Fn::kSoftmax ? softmax : log_softmax)(y.view(), in, dim); });
  fill_normal(g, 4);
  expect_same_bits<T>(
      dx, [&] { (fn == Fn::kSoftmax ? softmax_backward : log_softmax_backward)(dx.view(), g.view(), y.view(), dim); });
  const auto lines = lines_of(in, dim), ys = lines_of(y.view(), dim), gs = lines_of(g.view(), dim),
             dxs = lines_of(dx.view(), dim);
  for (size_t l = 0; l < lines.size(); ++l) {
    std::ostringstream what;
    what << "fn " << static_cast<int>(fn) << in.dtype << in.sizes << " dim " << dim << " line " << l;
    expect_near(ys[l], forward_reference(fn, lines[l]), tolerance, what.str());
    double dot = 0, sum = 0;
    for (size_t i = 0; i < gs[l].size(); ++i) dot += gs[l][i] * ys[l][i], sum += gs[l][i];
    std::vector<double> expected;
    for (size_t i = 0; i < gs[l].size(); ++i)
      expected.push_back(fn == Fn::kSoftmax ? ys[l][i] * (gs[l][i] - dot) : gs[l][i] - std::exp(ys[l][i]) * sum);
    expect_near(dxs[l], expected, 4 * tolerance, what.str() + " backward");
  }
}

template <class In, class T>
void check_shapes(double tolerance) {
  for (const Dims& shape : kShapes)
    for (int dim = 0; dim < std::max(1, shape.size()); ++dim)
      for (Fn fn : {Fn::kSoftmax, Fn::kLogSoftmax}) {
        Array<In> x(shape, 1);
        fill_normal(x, 9, 4);
        check<In, T>(fn, x.view(), dim, tolerance);
        if (shape.empty()) continue;
        check<In, T>(fn, transposed(x.view(), 0, shape.size() - 1), dim, tolerance);
        if (x.numel() > 0) check<In, T>(fn, sliced(x.view(), shape.size() - 1, -2), dim, tolerance);
      }
}

TEST(Softmax, EveryShapeAndDType) {
  for_each_target([] {
    check_shapes<float, float>(2e-6);
    check_shapes<double, double>(1e-13);
    check_shapes<BFloat16, BFloat16>(1e-2);
    check_shapes<Half, Half>(2e-3);
    check_shapes<BFloat16, float>(2e-6);
    check_shapes<float, double>(1e-13);
  });
}

TEST(Softmax, OddLengths) {
  for_each_target([] {
    for (int64_t n = 1; n <= 70; ++n)
      for (Fn fn : {Fn::kSoftmax, Fn::kLogSoftmax}) {
        Array<float> x({2, n}, static_cast<int>(n % 3));
        fill_normal(x, static_cast<uint32_t>(n), 30);
        check<float, float>(fn, x.view(), 1, 3e-6);
      }
  });
}

TEST(Softmax, SpecialRows) {
  for_each_target([] {
    const float inf = INFINITY, nan = std::nanf("");
    for (int64_t n : {3, 16, 40}) {
      Array<float> x({4, n}), y({4, n}), z({4, n});
      fill_normal(x, 1);
      for (int64_t i = 0; i < n; ++i) x[i] = -inf;  // all -inf: NaN
      x[n + 1] = nan;                               // one NaN: all NaN
      x[2 * n + 2] = inf;                           // +inf: NaN there, 0/NaN elsewhere
      x[3 * n] = -inf;                              // masked out: exactly 0
      softmax(y.view(), x.view(), 1);
      log_softmax(z.view(), x.view(), 1);
      for (int64_t i = 0; i < 2 * n; ++i) {
        EXPECT_TRUE(std::isnan(y[i])) << i;
        EXPECT_TRUE(std::isnan(z[i])) << i;
      }
      EXPECT_TRUE(std::isnan(y[2 * n + 2]));
      EXPECT_EQ(y[3 * n], 0);
      EXPECT_EQ(z[3 * n], -inf);
      EXPECT_GT(y[3 * n + 1], 0);
    }
  });
}

TEST(Softmax, InPlaceAndRowsIndependentOfBatch) {
  for_each_target([] {
    Array<float> x({50, 123}), y({50, 123}), one({1, 123});
    fill_normal(x, 2, 3);
    softmax(y.view(), x.view(), 1);
    for (int64_t r = 0; r < 50; ++r) {
      const View row{x.begin() + r * 123, DType::kFloat32, {1, 123}, {123, 1}};
      softmax(one.view(), row, 1);
      EXPECT_EQ(std::memcmp(one.begin(), y.begin() + r * 123, 123 * sizeof(float)), 0);
    }
    softmax(x.view(), x.view(), 1);
    EXPECT_EQ(x.data, y.data);
  });
}

// The same values two apart.
template <class T>
View apart(Array<T>& from, Array<T>& to) {
  for (int64_t i = 0; i < from.numel(); ++i) to[2 * i] = from[i];
  View view = from.view();
  view.data = to.begin();
  for (int64_t& stride : view.strides) stride *= 2;
  return view;
}

// Dense 16-bit floats are read and written where they lie; other layouts go through lines of floats. The same bits.
template <class T>
void check_small_floats(const Dims& sizes, int dim, Fn fn) {
  const auto forward = fn == Fn::kSoftmax ? softmax : log_softmax;
  const auto backward = fn == Fn::kSoftmax ? softmax_backward : log_softmax_backward;
  Array<T> x(sizes, 1), y(sizes), g(sizes), dx(sizes);
  fill_normal(x, 9, 4);
  fill_normal(g, 4);
  const Dims room = {sizes[0], sizes[1], 2};
  Array<T> x2(room), y2(room), g2(room), dx2(room);
  const View xv = apart(x, x2), yv = apart(y, y2), gv = apart(g, g2), dxv = apart(dx, dx2);
  expect_same_bits<T>(y, [&] { forward(y.view(), x.view(), dim); });
  expect_same_bits<T>(dx, [&] { backward(dx.view(), g.view(), y.view(), dim); });
  forward(yv, xv, dim);
  backward(dxv, gv, yv, dim);
  for (int64_t i = 0; i < x.numel(); ++i) {
    ASSERT_EQ(y[i].bits, y2[2 * i].bits) << sizes << " dim " << dim << " at " << i;
    ASSERT_EQ(dx[i].bits, dx2[2 * i].bits) << sizes << " dim " << dim << " at " << i;
  }
}

TEST(Softmax, SmallFloatsInPlaceAsThroughFloats) {
  for_each_target([] {
    for (const Dims& sizes : {Dims{5, 7}, {5, 16}, {7, 33}, {3, 5000}, {5000, 16}, {70000, 16}, {37, 70}, {33, 601}})
      for (int dim = 0; dim < 2; ++dim)
        for (Fn fn : {Fn::kSoftmax, Fn::kLogSoftmax}) {
          check_small_floats<BFloat16>(sizes, dim, fn);
          check_small_floats<Half>(sizes, dim, fn);
        }
  });
}

}  // namespace
}  // namespace deepseek::kernels
