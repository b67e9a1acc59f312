#include "kernels/nn/norm.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

constexpr double kEps = 1e-5;

struct Expected {
  std::vector<double> y, mean, rstd, dx, dw, db;
};

Expected reference(bool centered, const std::vector<double>& x, const std::vector<double>& g,
                   const std::vector<double>& w, const std::vector<double>& b, size_t rows, size_t n) {
  Expected e;
  e.dw.assign(n, 0), e.db.assign(n, 0);
  for (size_t r = 0; r < rows; ++r) {
    const double* xr = x.data() + r * n;
    const double* gr = g.data() + r * n;
    double mean = 0, var = 0, c1 = 0, c2 = 0;
    if (centered)
      for (size_t i = 0; i < n; ++i) mean += xr[i] / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) var += (xr[i] - mean) * (xr[i] - mean) / static_cast<double>(n);
    const double rstd = 1 / std::sqrt(var + kEps);
    e.mean.push_back(mean), e.rstd.push_back(rstd);
    auto weight = [&](size_t i) { return w.empty() ? 1.0 : w[i]; };
    for (size_t i = 0; i < n; ++i) {
      const double h = (xr[i] - mean) * rstd;
      e.y.push_back(h * weight(i) + (b.empty() ? 0 : b[i]));
      e.dw[i] += gr[i] * h, e.db[i] += gr[i];
      if (centered) c1 += gr[i] * weight(i) / static_cast<double>(n);
      c2 += gr[i] * weight(i) * h / static_cast<double>(n);
    }
    for (size_t i = 0; i < n; ++i) e.dx.push_back(rstd * (gr[i] * weight(i) - c1 - (xr[i] - mean) * rstd * c2));
  }
  return e;
}

// T: dtype of rows, W: of the parameters, S: of the saved statistics.
template <class T, class W, class S>
void check(bool centered, int64_t rows, int64_t n, bool affine, double tolerance) {
  Array<T> x({rows, n}, 1), y({rows, n}, 1), g({rows, n}, 1), dx({rows, n}, 1);
  Array<W> w({n}, 1), b({n}, 1), dw({n}), db({n});
  Array<S> mean({rows}), rstd({rows});
  fill_normal(x, 1, 2, 1);
  fill_normal(g, 2);
  fill_normal(w, 3, 0.3, 1);
  fill_normal(b, 4);
  const View wv = affine ? w.view() : View{}, bv = affine ? b.view() : View{};
  expect_same_bits<T>(y, [&] {
    centered ? layer_norm(y.view(), mean.view(), rstd.view(), x.view(), wv, bv, kEps)
             : rms_norm(y.view(), rstd.view(), x.view(), wv, kEps);
  });
  auto backward = [&] {
    centered ? layer_norm_backward(dx.view(), dw.view(), db.view(), g.view(), x.view(), mean.view(), rstd.view(), wv)
             : rms_norm_backward(dx.view(), dw.view(), g.view(), x.view(), rstd.view(), wv);
  };
  expect_same_bits<T>(dx, backward);
  expect_same_bits<W>(dw, backward);
  const bool bias = affine && centered;
  const Expected e = reference(
      centered, values_of(x.view()), values_of(g.view()), affine ? values_of(w.view()) : std::vector<double>(),
      bias ? values_of(b.view()) : std::vector<double>(), static_cast<size_t>(rows), static_cast<size_t>(n));
  std::ostringstream what;
  what << (centered ? "layer_norm " : "rms_norm ") << dtype_of<T> << ' ' << rows << 'x' << n
       << (affine ? " affine " : " ");
  expect_near(values_of(y.view()), e.y, tolerance, what.str() + "y");
  if (centered) expect_near(values_of(mean.view()), e.mean, 1e-5, what.str() + "mean");
  expect_near(values_of(rstd.view()), e.rstd, 1e-5, what.str() + "rstd");
  const double condition = n == 1 && centered ? 400 : 1;  // rstd is 1/sqrt(eps) there
  expect_near(values_of(dx.view()), e.dx, 4 * tolerance * condition, what.str() + "dx");
  expect_near(values_of(dw.view()), e.dw, 10 * tolerance * condition, what.str() + "dw");
  if (centered) expect_near(values_of(db.view()), e.db, 10 * tolerance, what.str() + "db");
}

template <class T, class W, class S>
void check_shapes(double tolerance) {
  for (bool centered : {true, false})
    for (bool affine : {true, false}) {
      for (int64_t n : {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1000, 5000})
        check<T, W, S>(centered, 3, n, affine, tolerance);
      for (int64_t rows : {0, 1, 63, 64, 65, 300, 1000}) check<T, W, S>(centered, rows, 48, affine, tolerance);
    }
}

TEST(RowNorm, RowsOfEveryShapeAndDType) {
  for_each_target([] {
    check_shapes<float, float, float>(5e-6);
    check_shapes<double, double, double>(1e-12);
    check_shapes<BFloat16, float, float>(1e-2);
    check_shapes<BFloat16, BFloat16, float>(1e-2);
    check_shapes<Half, Half, float>(2e-3);
  });
}

TEST(RowNorm, LargeMeanKeepsItsVariance) {
  for_each_target([] {
    Array<float> x({1, 4096}), y({1, 4096});
    fill_normal(x, 1, 1, 1000);
    layer_norm(y.view(), View{}, View{}, x.view(), View{}, View{}, kEps);
    double squares = 0;
    for (float v : y.data) squares += static_cast<double>(v) * v;
    EXPECT_NEAR(squares / 4096, 1, 1e-4);
  });
}

TEST(RowNorm, PartialGradientsAndRowsIndependentOfBatch) {
  for_each_target([] {
    Array<float> x({70, 37}), g({70, 37}), y({70, 37}), rstd({70}), dx({70, 37}), only({70, 37}), one({1, 37}), r1({1});
    fill_normal(x, 1);
    fill_normal(g, 2);
    Array<float> dw({37}), dw_only({37});
    rms_norm(y.view(), rstd.view(), x.view(), View{}, kEps);
    rms_norm_backward(dx.view(), dw.view(), g.view(), x.view(), rstd.view(), View{});
    rms_norm_backward(only.view(), View{}, g.view(), x.view(), rstd.view(), View{});
    rms_norm_backward(View{}, dw_only.view(), g.view(), x.view(), rstd.view(), View{});
    EXPECT_EQ(dx.data, only.data);
    EXPECT_EQ(dw.data, dw_only.data);
    for (int64_t r = 0; r < 70; ++r) {
      rms_norm(one.view(), r1.view(), View{x.begin() + r * 37, DType::kFloat32, {1, 37}, {37, 1}}, View{}, kEps);
      EXPECT_EQ(std::memcmp(one.begin(), y.begin() + r * 37, 37 * sizeof(float)), 0);
    }
  });
}

// The sum and its norm in one pass, and a gradient added in the backward: bits of the steps one by one.
template <class T, class R, class S>
void check_residual(int64_t rows, int64_t n) {
  Array<T> x({rows, n}, 1);
  Array<R> residual({rows, n}, 1);
  Array<S> sum({rows, n}), want_sum({rows, n}), y({rows, n}), want({rows, n}), g({rows, n}), add({rows, n});
  fill_normal(x, 1);
  fill_normal(residual, 2);
  fill_normal(g, 3);
  fill_normal(add, 4);
  using C = ComputeType<S>;
  Array<C> rstd({rows}), want_rstd({rows}), w({n});
  fill_normal(w, 5);
  add_rms_norm(y.view(), sum.view(), rstd.view(), x.view(), residual.view(), w.view(), kEps);
  for (int64_t i = 0; i < rows * n; ++i) want_sum[i] = S(static_cast<C>(x[i]) + static_cast<C>(residual[i]));
  rms_norm(want.view(), want_rstd.view(), want_sum.view(), w.view(), kEps);
  const std::string what = "rows " + std::to_string(rows) + " n " + std::to_string(n);
  EXPECT_EQ(values_of(sum.view()), values_of(want_sum.view())) << what;
  EXPECT_EQ(values_of(y.view()), values_of(want.view())) << what;
  EXPECT_EQ(values_of(rstd.view()), values_of(want_rstd.view())) << what;
  if constexpr (std::is_same_v<S, C>) {
    Array<S> dx({rows, n}), plain({rows, n});
    Array<C> dw({n}), plain_dw({n});
    rms_norm_backward(dx.view(), dw.view(), g.view(), sum.view(), rstd.view(), w.view(), add.view());
    rms_norm_backward(plain.view(), plain_dw.view(), g.view(), sum.view(), rstd.view(), w.view());
    for (int64_t i = 0; i < rows * n; ++i) ASSERT_EQ(dx[i], plain[i] + add[i]) << what;
    EXPECT_EQ(dw.data, plain_dw.data) << what;
  }
}

TEST(RowNorm, ResidualAndAddedGradient) {
  for_each_target([] {
    for (int64_t n : {1, 7, 16, 33, 100, 1000})
      for (int64_t rows : {0, 1, 3, 70}) {
        check_residual<float, float, float>(rows, n);
        check_residual<double, double, double>(rows, n);
        check_residual<float, double, double>(rows, n);
        check_residual<BFloat16, float, float>(rows, n);
        check_residual<BFloat16, BFloat16, BFloat16>(rows, n);
        check_residual<Half, Half, Half>(rows, n);
      }
  });
}

TEST(RowNorm, NanStaysInItsRow) {
  for_each_target([] {
    Array<float> x({3, 20}), y({3, 20});
    fill_normal(x, 1);
    x[25] = std::nanf("");
    rms_norm(y.view(), View{}, x.view(), View{}, kEps);
    for (int64_t i = 0; i < 60; ++i) EXPECT_EQ(std::isnan(y[i]), i / 20 == 1);
  });
}

}  // namespace
}  // namespace deepseek::kernels
