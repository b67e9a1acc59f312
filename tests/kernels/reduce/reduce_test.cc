#include "kernels/reduce/reduce.h"

#include <climits>

#include "kernels/reduce/arg_reduce.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Lines over a set of reduced dims: those dims merged at the end.
std::vector<std::vector<double>> groups_of(const View& v, const std::vector<int>& dims) {
  View moved = v;
  moved.sizes = {}, moved.strides = {};
  auto reduced = [&](int d) { return std::find(dims.begin(), dims.end(), d) != dims.end(); };
  int64_t n = 1;
  for (int pass = 0; pass < 2; ++pass)
    for (int d = 0; d < v.ndim(); ++d)
      if (reduced(d) == (pass == 1)) {
        moved.sizes.push_back(v.sizes[d]), moved.strides.push_back(v.strides[d]);
        if (pass == 1) n *= v.sizes[d];
      }
  const std::vector<double> all = values_of(moved);
  std::vector<std::vector<double>> groups;
  for (size_t i = 0; i + static_cast<size_t>(n) <= all.size() && n > 0; i += static_cast<size_t>(n))
    groups.emplace_back(all.begin() + static_cast<int64_t>(i), all.begin() + static_cast<int64_t>(i) + n);
  return groups;
}

Dims keepdim_sizes(const View& v, const std::vector<int>& dims) {
  Dims sizes = v.sizes;
  for (int d : dims) sizes[d] = 1;
  return sizes;
}

double reference(ReduceOp op, const std::vector<double>& x) {
  long double sum = 0, product = 1;
  double low = kInf, high = -kInf;
  bool any = false, all = true, nan = false;
  for (double v : x) {
    sum += v, product *= v;
    nan |= std::isnan(v);
    low = std::min(low, v), high = std::max(high, v);
    any |= v != 0, all &= v != 0;
  }
  switch (op) {
    case ReduceOp::kSum:
      return static_cast<double>(sum);
    case ReduceOp::kProd:
      return static_cast<double>(product);
    case ReduceOp::kMin:
      return nan ? kNan : low;
    case ReduceOp::kMax:
      return nan ? kNan : high;
    case ReduceOp::kAny:
      return any;
    case ReduceOp::kAll:
      return all;
  }
  return 0;
}

template <class Out>
void check(ReduceOp op, const View& in, const std::vector<int>& dims, double tolerance, const std::string& what) {
  Array<Out> out(keepdim_sizes(in, dims));
  expect_same_bits<Out>(out, [&] { reduce(op, out.view(), in); });
  std::vector<double> expected;
  for (const auto& group : groups_of(in, dims)) expected.push_back(reference(op, group));
  expect_near(values_of(out.view()), expected, tolerance, what);
}

struct Layout {
  Dims sizes;
  std::vector<int> dims;
};
const Layout kLayouts[] = {
    {{}, {}},
    {{1}, {0}},
    {{7}, {0}},
    {{33}, {0}},
    {{4095}, {0}},
    {{70001}, {0}},
    {{5, 31}, {1}},
    {{5, 31}, {0}},
    {{3, 9001}, {1}},
    {{9001, 3}, {0}},
    {{70, 700}, {0}},
    {{40, 1}, {0}},
    {{4, 33, 17}, {1}},
    {{4, 33, 17}, {0, 2}},
    {{4, 33, 17}, {0, 1, 2}},
    {{3, 5, 2, 7}, {1, 3}},
    {{3, 5, 2, 7}, {0, 2}},
    {{2, 3}, {}},
};

// Contiguous, transposed, sliced both ways, broadcast: all that a view can be.
std::vector<std::pair<std::string, View>> variants(const View& v) {
  std::vector<std::pair<std::string, View>> result{{"contiguous", v}};
  if (v.ndim() >= 2) result.emplace_back("transposed", transposed(v, 0, v.ndim() - 1));
  if (v.ndim() >= 1) result.emplace_back("step 2", sliced(v, v.ndim() - 1, 2));
  if (v.ndim() >= 1) result.emplace_back("reversed", sliced(v, 0, -1));
  if (v.ndim() >= 2) {
    View b = v;
    b.strides[0] = 0;
    result.emplace_back("broadcast", b);
  }
  return result;
}

template <class T, class Out>
void check_all_layouts(ReduceOp op, double tolerance, int lead) {
  for (const Layout& layout : kLayouts) {
    Array<T> x(layout.sizes, lead);
    if constexpr (std::is_integral_v<T>) {
      const bool extreme = op == ReduceOp::kMin || op == ReduceOp::kMax;
      const int low = op == ReduceOp::kProd ? 1
                      : extreme             ? std::max<int64_t>(std::numeric_limits<T>::min(), INT_MIN)
                                            : 0;
      const int high = op == ReduceOp::kProd ? 1
                       : extreme             ? std::min<int64_t>(std::numeric_limits<T>::max(), INT_MAX)
                                             : 20;
      fill_integers(x, 3, low, high);
    } else if (op == ReduceOp::kProd) {
      fill_normal(x, 3, 0.001, 1);
    } else {
      fill_normal(x, 3);
    }
    if (op == ReduceOp::kProd && x.numel() > 2) x[2] = static_cast<T>(2);
    for (const auto& [name, view] : variants(x.view())) {
      if (op == ReduceOp::kProd && name == "broadcast") continue;  // 2^300
      std::ostringstream what;
      what << name_of(view.dtype) << " op " << static_cast<int>(op) << ' ' << name << view.sizes;
      check<Out>(op, view, layout.dims, tolerance, what.str());
    }
  }
}

TEST(Reduce, EveryLayoutAndDType) {
  for_each_target([] {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax}) {
      const bool extreme = op == ReduceOp::kMin || op == ReduceOp::kMax;
      check_all_layouts<float, float>(op, 3e-5, 1);
      check_all_layouts<double, double>(op, 1e-11, 1);
      check_all_layouts<int64_t, int64_t>(op, 0, 1);
      if (extreme) {
        check_all_layouts<int32_t, int32_t>(op, 0, 1);
        check_all_layouts<int16_t, int16_t>(op, 0, 1);
        check_all_layouts<int8_t, int8_t>(op, 0, 3);
        check_all_layouts<uint8_t, uint8_t>(op, 0, 3);
        check_all_layouts<BFloat16, BFloat16>(op, 0, 3);
        check_all_layouts<Half, Half>(op, 0, 1);
      } else {
        check_all_layouts<int8_t, int64_t>(op, 0, 3);
        check_all_layouts<uint8_t, int64_t>(op, 0, 3);
        check_all_layouts<int32_t, float>(op, 1e-5, 1);
        check_all_layouts<float, double>(op, 1e-11, 1);
        check_all_layouts<BFloat16, float>(op, 3e-5, 3);
        check_all_layouts<Half, float>(op, 3e-5, 1);
      }
    }
    for (ReduceOp op : {ReduceOp::kAny, ReduceOp::kAll}) {
      check_all_layouts<float, uint8_t>(op, 0, 1);
      check_all_layouts<int16_t, uint8_t>(op, 0, 1);
      check_all_layouts<uint8_t, uint8_t>(op, 0, 1);
    }
  });
}

TEST(Reduce, OddLengths) {
  for_each_target([] {
    for (int64_t n = 1; n <= 140; ++n)
      for (int lead : {0, 1, 3}) {
        Array<float> x({n}, lead), rows({3, n}, lead);
        fill_integers(x, 1, -9, 9);
        fill_integers(rows, 2, -9, 9);
        check<float>(ReduceOp::kSum, x.view(), {0}, 0, "sum of " + std::to_string(n));
        check<float>(ReduceOp::kMax, rows.view(), {1}, 0, "max of rows of " + std::to_string(n));
        check<float>(ReduceOp::kMin, rows.view(), {0}, 0, "min of columns of " + std::to_string(n));
      }
  });
}

// One tree: the bits depend on the reduced values alone, not on layout, neighbours or vector width.
TEST(Reduce, SameBitsInEveryLayoutAndTarget) {
  constexpr int64_t kLength = 10007, kCount = 19;
  Array<float> x({kLength, kCount});
  fill_normal(x, 5, 1e3);
  std::vector<float> first;
  for_each_target([&] {
    Array<float> columns({1, kCount}), rows({kCount, 1}), one({1, 1});
    reduce(ReduceOp::kSum, columns.view(), x.view());
    if (first.empty()) first = columns.data;
    EXPECT_EQ(first, columns.data);
    Array<float> y({kCount, kLength});
    for (int64_t i = 0; i < kLength; ++i)
      for (int64_t j = 0; j < kCount; ++j) y[j * kLength + i] = x[i * kCount + j];
    reduce(ReduceOp::kSum, rows.view(), y.view());
    EXPECT_EQ(first, rows.data);
    for (int64_t j = 0; j < kCount; ++j) {  // alone, strided and contiguous
      View column = x.view();
      column.sizes[1] = 1;
      column.data = column.at(j);
      reduce(ReduceOp::kSum, one.view(), column);
      EXPECT_EQ(first[static_cast<size_t>(j)], one[0]);
      View row{y.begin() + j * kLength, DType::kFloat32, {1, kLength}, {kLength, 1}};
      reduce(ReduceOp::kSum, one.view(), row);
      EXPECT_EQ(first[static_cast<size_t>(j)], one[0]);
    }
  });
}

TEST(Reduce, OnesSumExactly) {
  constexpr int64_t kOnes = int64_t{1} << 24;
  Array<float> x({kOnes});
  std::fill(x.data.begin(), x.data.end(), 1.0f);
  for_each_target([&] { check<float>(ReduceOp::kSum, x.view(), {0}, 0, "2^24 ones"); });
}

TEST(Reduce, NanAndInfinity) {
  for_each_target([] {
    for (int64_t n : {1, 5, 16, 33, 100, 5000})
      for (int64_t at : {int64_t{0}, n / 2, n - 1})
        for (double special : {kNan, kInf, -kInf}) {
          Array<float> x({n}), rows({n, 5});
          fill_normal(x, 7);
          fill_normal(rows, 8);
          x[at] = rows[at * 5 + 3] = static_cast<float>(special);
          for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kAny}) {
            const std::string what = "special at " + std::to_string(at) + " of " + std::to_string(n);
            if (op == ReduceOp::kAny) {
              check<uint8_t>(op, x.view(), {0}, 0, what);
            } else {
              check<float>(op, x.view(), {0}, 1e-4, what);
              check<float>(op, rows.view(), {0}, 1e-4, what);
            }
          }
        }
  });
}

TEST(Reduce, EmptyReductions) {
  for_each_target([] {
    Array<float> none({0, 3}), sums({1, 3}), no_sums({0, 1});
    for (float& v : sums.data) v = 9;
    reduce(ReduceOp::kSum, sums.view(), none.view());
    EXPECT_EQ(sums.data, (std::vector<float>{0, 0, 0}));
    EXPECT_FALSE(std::signbit(sums[0]));
    reduce(ReduceOp::kProd, sums.view(), none.view());
    EXPECT_EQ(sums.data, (std::vector<float>{1, 1, 1}));
    BoolArray flags({1, 3});
    reduce(ReduceOp::kAll, flags.view(), none.view());
    EXPECT_EQ(flags.data, (std::vector<uint8_t>{1, 1, 1}));
    reduce(ReduceOp::kAny, flags.view(), none.view());
    EXPECT_EQ(flags.data, (std::vector<uint8_t>{0, 0, 0}));
    reduce(ReduceOp::kMax, no_sums.view(), none.view());  // no outputs: nothing to do
    EXPECT_THROW(reduce(ReduceOp::kMax, sums.view(), none.view()), Error);
  });
}

TEST(Reduce, StridedOutput) {
  for_each_target([] {
    Array<float> x({6, 50}), out({6, 3});
    fill_integers(x, 9, -5, 5);
    View to = out.view();
    to.sizes[1] = 1;  // the first column of a wider matrix
    reduce(ReduceOp::kSum, to, x.view());
    for (int64_t r = 0; r < 6; ++r) {
      float sum = 0;
      for (int64_t c = 0; c < 50; ++c) sum += x[r * 50 + c];
      EXPECT_EQ(out[r * 3], sum);
      EXPECT_EQ(out[r * 3 + 1], 0);
    }
  });
}

TEST(Reduce, Int64Wraps) {
  for_each_target([] {
    Array<int64_t> x({3}), out({1});
    x[0] = std::numeric_limits<int64_t>::max(), x[1] = 1, x[2] = 5;
    reduce(ReduceOp::kSum, out.view(), x.view());
    EXPECT_EQ(out[0], std::numeric_limits<int64_t>::min() + 5);
  });
}

TEST(VarMean, AgainstLongDouble) {
  for_each_target([] {
    for (const Layout& layout : kLayouts)
      for (double shift : {0.0, 1e4}) {
        Array<float> x(layout.sizes, 1);
        fill_normal(x, 11, 1, shift);
        for (const auto& [name, view] : variants(x.view())) {
          Array<float> var(keepdim_sizes(view, layout.dims)), mean(var.sizes);
          expect_same_bits<float>(var, [&, &v = view] { var_mean(var.view(), mean.view(), v, 1); });
          std::vector<double> variances, means;
          for (const auto& group : groups_of(view, layout.dims)) {
            const long double n = static_cast<long double>(group.size());
            long double sum = 0, squares = 0;
            for (double v : group) sum += v;
            for (double v : group) squares += (v - sum / n) * (v - sum / n);
            means.push_back(static_cast<double>(sum / n));
            variances.push_back(static_cast<double>(squares / (n - 1)));
          }
          expect_near(values_of(mean.view()), means, 1e-6, "mean " + name);
          expect_near(values_of(var.view()), variances, 1e-5, "var " + name);
        }
      }
    Array<float> x({4}), out({1});
    var_mean(out.view(), View{}, x.view(), 4);
    EXPECT_TRUE(std::isnan(out[0]));
  });
}

TEST(Norm, EveryPower) {
  for_each_target([] {
    for (double p : {0.0, 1.0, 2.0, 3.0, 0.5, -1.0, kInf, -kInf})
      for (const Layout& layout : kLayouts) {
        Array<float> x(layout.sizes, 1);
        fill_normal(x, 13);
        if (x.numel() > 6) x[5] = 0;
        for (const auto& [name, view] : variants(x.view())) {
          Array<float> out(keepdim_sizes(view, layout.dims));
          expect_same_bits<float>(out, [&, &v = view] { norm_p(out.view(), v, p); });
          std::vector<double> expected;
          for (const auto& group : groups_of(view, layout.dims)) {
            double sum = 0, high = 0, low = kInf;
            for (double v : group) {
              sum += p == 0 ? v != 0 : std::pow(std::abs(v), p);
              high = std::max(high, std::abs(v)), low = std::min(low, std::abs(v));
            }
            expected.push_back(p == 0 ? sum : p == kInf ? high : p == -kInf ? low : std::pow(sum, 1 / p));
          }
          expect_near(values_of(out.view()), expected, 3e-5, "norm " + std::to_string(p) + name);
        }
      }
  });
}

TEST(Norm, NanIsNonzero) {
  for_each_target([] {
    Array<float> x({9}), out({1});
    x[4] = std::nanf("");
    norm_p(out.view(), x.view(), 0);
    EXPECT_EQ(out[0], 1);
    norm_p(out.view(), x.view(), kInf);
    EXPECT_TRUE(std::isnan(out[0]));
  });
}

TEST(LogSumExp, SpecialRows) {
  for_each_target([] {
    Array<double> x({5, 3}), out({5, 1});
    const double rows[5][3] = {{1000, 1000, 999}, {-kInf, -kInf, -kInf}, {0, kInf, 1}, {kNan, 0, 1}, {-kInf, 2, -kInf}};
    std::copy_n(&rows[0][0], 15, x.begin());
    logsumexp(out.view(), x.view());
    expect_near(values_of(out.view()), {1000 + std::log(2 + std::exp(-1)), -kInf, kInf, kNan, 2}, 1e-14, "logsumexp");
    Array<float> y({7, 300}), sums({1, 300});
    fill_normal(y, 3, 5);
    expect_same_bits<float>(sums, [&] { logsumexp(sums.view(), y.view()); });
    std::vector<double> expected;
    for (const auto& line : lines_of(y.view(), 0)) {
      double sum = 0;
      for (double v : line) sum += std::exp(v);
      expected.push_back(std::log(sum));
    }
    expect_near(values_of(sums.view()), expected, 2e-6, "logsumexp of columns");
  });
}

template <class T>
void check_arg(const View& in, int dim, bool is_max) {
  Dims sizes = in.sizes;
  sizes[dim] = 1;
  Array<int64_t> index(sizes), only(sizes);
  Array<T> value(sizes);
  expect_same_bits<int64_t>(index, [&] { min_max_with_index(value.view(), index.view(), in, dim, is_max); });
  arg_reduce(only.view(), in, dim, is_max);
  EXPECT_EQ(index.data, only.data);
  std::vector<double> expected, values;
  for (const auto& line : lines_of(in, dim)) {
    size_t best = 0;
    for (size_t i = 1; i < line.size() && !std::isnan(line[best]); ++i)
      if (std::isnan(line[i]) || (is_max ? line[i] > line[best] : line[i] < line[best])) best = i;
    expected.push_back(static_cast<double>(best));
    values.push_back(line[best]);
  }
  std::ostringstream what;
  what << "arg of " << in.dtype << in.sizes << " dim " << dim;
  expect_near(values_of(index.view()), expected, 0, what.str());
  expect_near(values_of(value.view()), values, 0, what.str());
}

TEST(ArgReduce, FirstWinsAndNanBeatsAll) {
  for_each_target([] {
    const Dims shapes[] = {{1}, {31}, {64}, {9000}, {100000}, {6, 40}, {40, 37}, {3, 5000}, {5000, 3}, {4, 21, 18}};
    for (const Dims& shape : shapes)
      for (int dim = 0; dim < shape.size(); ++dim)
        for (bool is_max : {true, false}) {
          Array<float> x(shape, 1);
          fill_integers(x, 4, -50, 50);  // many ties
          check_arg<float>(x.view(), dim, is_max);
          check_arg<float>(sliced(x.view(), dim, -2), dim, is_max);
          if (shape.size() > 1) check_arg<float>(transposed(x.view(), 0, 1), dim, is_max);
          x[x.numel() / 2] = x[x.numel() * 2 / 3] = std::nanf("");
          check_arg<float>(x.view(), dim, is_max);
          Array<int16_t> i(shape);
          fill_integers(i, 4, -50, 50);
          check_arg<int16_t>(i.view(), dim, is_max);
          Array<BFloat16> b(shape, 1);
          fill_integers(b, 6, -50, 50);
          check_arg<BFloat16>(b.view(), dim, is_max);
          Array<double> d(shape, 1);
          fill_normal(d, 6);
          check_arg<double>(d.view(), dim, is_max);
        }
  });
}

// 16-bit floats are read where they lie: the bits of reducing them as float.
template <class T>
void check_small_floats() {
  for (const Dims& sizes : {Dims{7}, {33}, {5000}, {3, 9001}, {9001, 3}, {37, 70}, {70, 601}, {300, 33}})
    for (int dim = 0; dim < sizes.size(); ++dim)
      for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax}) {
        Array<T> x(sizes, 1);
        op == ReduceOp::kProd ? fill_normal(x, 3, 0.001, 1) : fill_normal(x, 3);
        Array<float> wide(sizes);
        for (int64_t i = 0; i < x.numel(); ++i) wide[i] = static_cast<float>(x[i]);
        const Dims kept = keepdim_sizes(x.view(), {dim});
        Array<T> got(kept), want(kept);
        expect_same_bits<T>(got, [&] { reduce(op, got.view(), x.view()); });
        reduce(op, want.view(), wide.view());
        for (int64_t i = 0; i < got.numel(); ++i) ASSERT_EQ(got[i].bits, want[i].bits) << sizes << " dim " << dim;
      }
}

TEST(Reduce, SmallFloatsAsFloat) {
  for_each_target([] {
    check_small_floats<BFloat16>();
    check_small_floats<Half>();
  });
}

}  // namespace
}  // namespace deepseek::kernels
