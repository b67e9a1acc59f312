#include "kernels/pointwise/pointwise.h"

#include "kernels/pointwise/rows.h"
#include "tests/kernels/kernel_testing.h"

// That the loops compute what a row of pointwise.def says. What rows mean is checked by pytests/ops/test_pointwise.py
// against the references of pytests/opinfo.
namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct Row {
  const char* name;
  Pointwise op;
  int arity;
  bool floats;
};

// A part outside parentheses is a word; FLOAT becomes one of these.
#define FLOAT(...) +1
#define INT(...)
#define BOOLS(...)
#define EXACT
#define VJP(...)
#define SAVES(...)
#define SIGN(...)
#define CHECK(...)
#define DOC(...)
#define DS_POINTWISE(S, name, rule, arguments, ...) \
  {#S, Pointwise::k##S, static_cast<int>(std::initializer_list<int>{DS_LIST(DS_ONE, arguments)}.size()), 0 __VA_ARGS__},
#define DS_POINTWISE_SCALED DS_POINTWISE
const Row kRows[] = {
#include "kernels/pointwise/pointwise.def"
};
#undef FLOAT
#undef INT
#undef BOOLS
#undef EXACT
#undef VJP
#undef SAVES
#undef SIGN
#undef CHECK
#undef DOC
#undef DS_POINTWISE
#undef DS_POINTWISE_SCALED

// Special values, every pair of two of them, and n others.
template <class T>
std::vector<T> inputs(int k, size_t n) {
  std::mt19937 engine(17u + static_cast<unsigned>(k));
  std::uniform_real_distribution<double> uniform(-8, 8);
  std::vector<T> values;
  constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> special{0,        T(-0.0),   1,       -1,     inf,     -inf,   nan,
                               T(1e-30), T(-1e-30), T(1e30), T(0.5), T(-0.5), T(2.5), T(3)};
  for (size_t i = 0; i < special.size() * special.size(); ++i)
    values.push_back(special[k == 0 ? i % special.size() : k == 1 ? i / special.size() : (i * 5) % special.size()]);
  for (size_t i = 0; i < n; ++i) values.push_back(static_cast<T>(uniform(engine)));
  return values;
}

// Bytes of 0 and 1, also where an op's lanes may hold more: true + true.
TEST(Pointwise, BoolsStayBools) {
  const struct {
    Pointwise op;
    bool (*expected)(bool, bool);
  } cases[] = {
      {Pointwise::kAdd, [](bool a, bool b) { return a || b; }},
      {Pointwise::kMul, [](bool a, bool b) { return a && b; }},
      {Pointwise::kMaximum, [](bool a, bool b) { return a || b; }},
      {Pointwise::kBitwiseAnd, [](bool a, bool b) { return a && b; }},
      {Pointwise::kBitwiseOr, [](bool a, bool b) { return a || b; }},
      {Pointwise::kBitwiseXor, [](bool a, bool b) { return a != b; }},
      {Pointwise::kLogicalXor, [](bool a, bool b) { return a != b; }},
      {Pointwise::kEq, [](bool a, bool b) { return a == b; }},
      {Pointwise::kLt, [](bool a, bool b) { return a < b; }},
  };
  for_each_target([&] {
    for (const auto& c : cases)
      for (int64_t n : {1, 15, 64, 1093}) {
        BoolArray a({n}, 1), b({n}), out({n}, 3), apart({n, 2});
        fill_integers(a, 1, 0, 1);
        fill_integers(b, 2, 0, 1);
        const View inputs[] = {a.view(), b.view()};
        pointwise(c.op, DType::kBool, out.view(), inputs);
        pointwise(c.op, DType::kBool, View{apart.begin(), DType::kBool, {n}, {2}}, inputs);
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_EQ(out[i], c.expected(a[i] != 0, b[i] != 0)) << static_cast<int>(c.op) << " at " << i;
          ASSERT_EQ(apart[2 * i], out[i]) << static_cast<int>(c.op) << " at " << i;
        }
      }
  });
}

// By squares modulo 2^64, of which the narrower types show the lower bits; negative powers are fractions.
int64_t power(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
  if (exponent == 0) return 1;
  const auto half = static_cast<uint64_t>(power(base, exponent / 2));
  return static_cast<int64_t>(half * half * (exponent % 2 == 0 ? 1 : static_cast<uint64_t>(base)));
}

template <class T>
void check_powers() {
  constexpr int64_t n = 501;
  Array<T> base({n}), exponent({n}), out({n});
  std::mt19937_64 engine(3);
  for (int64_t i = 0; i < n; ++i) {
    base[i] = i % 3 == 0 ? T(i % 2 * 2 - 1) : static_cast<T>(engine());
    exponent[i] = static_cast<T>(engine());
  }
  const View in[] = {base.view(), exponent.view()};
  pointwise(Pointwise::kPow, dtype_of<T>, out.view(), in);
  for (int64_t i = 0; i < n; ++i)
    ASSERT_EQ(out[i], static_cast<T>(power(base[i], exponent[i]))) << base[i] << " ^ " << exponent[i];
}

TEST(Pointwise, IntegerPowersOfAnySign) {
  for_each_target([] {
    check_powers<int8_t>();
    check_powers<uint8_t>();
    check_powers<int16_t>();
    check_powers<int32_t>();
    check_powers<int64_t>();
  });
}

TEST(Pointwise, IntegerDivisionByZeroIsAnError) {
  for (Pointwise op : {Pointwise::kDivTrunc, Pointwise::kFloorDivide, Pointwise::kRemainder, Pointwise::kFmod}) {
    Array<int64_t> a({3}), b({3}), out({3});
    a[0] = a[1] = a[2] = 5;
    b[0] = b[2] = 1;
    const std::array<View, 2> in{a.view(), b.view()};
    EXPECT_THROW(pointwise(op, DType::kInt64, out.view(), in), Error);
  }
}

TEST(Pointwise, ExtremeIntegersDivideByMinusOne) {
  Array<int64_t> a({1}), b({1}), out({1});
  a[0] = std::numeric_limits<int64_t>::min();
  b[0] = -1;
  const std::array<View, 2> in{a.view(), b.view()};
  for (const auto& [op, expected] : {std::pair{Pointwise::kFloorDivide, a[0]},
                                     {Pointwise::kDivTrunc, a[0]},
                                     {Pointwise::kRemainder, int64_t{0}},
                                     {Pointwise::kFmod, int64_t{0}}}) {
    pointwise(op, DType::kInt64, out.view(), in);
    EXPECT_EQ(out[0], expected);
  }
}

// Every length around the vector widths, unaligned, with guards on both sides.
TEST(Pointwise, OddLengthsAndUnalignedPointers) {
  for_each_target([] {
    for (int64_t n = 0; n <= 67; ++n)
      for (int lead = 0; lead < 3; ++lead) {
        Array<float> a({n}, lead), b({n}, 2 - lead), out({n + 1}, lead);
        fill_normal(a, 1), fill_normal(b, 2);
        out[n] = -7;
        View target = out.view();
        target.sizes = {n};
        const std::array<View, 2> in{a.view(), b.view()};
        pointwise(Pointwise::kAdd, DType::kFloat32, target, in);
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(out[i], a[i] + b[i]);
        ASSERT_EQ(out[n], -7);
      }
  });
}

// Strided, reversed, transposed, broadcast and converted operands against the values themselves.
template <class A, class B, class Out>
void check_layouts(DType compute) {
  const Dims shape{37, 50};
  Array<A> a(shape, 1);
  Array<B> b(shape), flipped({50, 37});
  fill_integers(a, 1, 1, 9), fill_integers(b, 2, 1, 9), fill_integers(flipped, 3, 1, 9);
  const View row{b.begin(), dtype_of<B>, shape, {0, 1}}, column{b.begin(), dtype_of<B>, shape, {1, 0}},
      one{b.begin(), dtype_of<B>, shape, {0, 0}};
  std::vector<std::pair<View, View>> pairs{{a.view(), b.view()},
                                           {a.view(), row},
                                           {a.view(), column},
                                           {a.view(), one},
                                           {a.view(), transposed(flipped.view(), 0, 1)}};
  for (int dim : {0, 1})
    for (int64_t step : {2, -1, -3}) pairs.push_back({sliced(a.view(), dim, step), sliced(b.view(), dim, step)});
  for (const auto& [x, y] : pairs) {
    const std::vector<double> xs = values_of(x), ys = values_of(y);
    std::vector<double> expected;
    for (size_t i = 0; i < xs.size(); ++i) expected.push_back(xs[i] * ys[i]);
    const std::array<View, 2> in{x, y};
    Array<Out> out(x.sizes, 1), turned({x.sizes[1], x.sizes[0]});
    expect_same_bits<Out>(out, [&] { pointwise(Pointwise::kMul, compute, out.view(), in); });
    EXPECT_EQ(values_of(out.view()), expected) << x.strides << y.strides;
    pointwise(Pointwise::kMul, compute, transposed(turned.view(), 0, 1), in);
    EXPECT_EQ(values_of(transposed(turned.view(), 0, 1)), expected);
  }
}

TEST(Pointwise, LayoutsAndMixedDTypes) {
  for_each_target([] {
    check_layouts<float, float, float>(DType::kFloat32);
    check_layouts<double, double, double>(DType::kFloat64);
    check_layouts<BFloat16, BFloat16, BFloat16>(DType::kBFloat16);
    check_layouts<Half, float, float>(DType::kFloat32);
    check_layouts<int8_t, int32_t, int32_t>(DType::kInt32);
    check_layouts<uint8_t, uint8_t, uint8_t>(DType::kUInt8);
    check_layouts<int64_t, int16_t, int64_t>(DType::kInt64);
    check_layouts<int32_t, double, double>(DType::kFloat64);
    check_layouts<float, int64_t, Half>(DType::kFloat32);
  });
}

// An element's bits depend on its own inputs only: not on its neighbours, its place in a vector or the padding behind
// it.
template <class T>
void check_elements_alone(const Row& row) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  std::vector<std::vector<T>> in;
  std::vector<View> views;
  for (int k = 0; k < row.arity; ++k) in.push_back(inputs<T>(k, 61));
  const auto n = static_cast<int64_t>(in[0].size());
  if (row.op == Pointwise::kPow)  // exponents with a short cut between others
    for (size_t i = 0; i < 61; ++i) in[1][in[1].size() - 61 + i] = std::array<T, 6>{2, 3, 0.5, -1, T(1.7), 0}[i % 6];
  for (auto& v : in) views.push_back({v.data(), dtype_of<T>, {n}, {1}});
  std::vector<T> all(static_cast<size_t>(n));
  pointwise(row.op, dtype_of<T>, View{all.data(), dtype_of<T>, {n}, {1}}, views);
  for (int64_t i = 0; i < n; ++i) {
    T one = 0;
    std::vector<View> single = views;
    for (View& v : single) v.data = v.at(i), v.sizes = {1};
    pointwise(row.op, dtype_of<T>, View{&one, dtype_of<T>, {1}, {1}}, single);
    ASSERT_EQ(std::bit_cast<Bits>(one), std::bit_cast<Bits>(all[static_cast<size_t>(i)])) << row.name << " at " << i;
  }
}

TEST(Pointwise, ElementsDoNotDependOnTheirNeighbours) {
  for_each_target([] {
    for (const Row& row : kRows)
      if (row.floats) check_elements_alone<float>(row), check_elements_alone<double>(row);
  });
}

TEST(Pointwise, ComparisonsStoreBool) {
  BoolArray out({600});
  Array<float> a({600}), b({600});
  fill_integers(a, 1, 0, 3), fill_integers(b, 2, 0, 3);
  const std::array<View, 2> in{a.view(), b.view()};
  pointwise(Pointwise::kLt, DType::kFloat32, out.view(), in);
  for (int64_t i = 0; i < 600; ++i) ASSERT_EQ(out[i], a[i] < b[i] ? 1 : 0);
}

TEST(Pointwise, LargeInputsGiveTheSameBitsOnOneAndTwoThreads) {
  Array<float> a({300, 1001}, 1), out({300, 1001});
  fill_normal(a, 1);
  for (const View& x : {a.view(), View{a.begin(), DType::kFloat32, {300, 1001}, {0, 1}}}) {
    const std::array<View, 1> in{x};
    expect_same_bits<float>(out, [&] { pointwise(Pointwise::kTanh, DType::kFloat32, out.view(), in); });
    for (int64_t i : {0, 999, 1000, 1001, 300299})
      EXPECT_NEAR(out[i], std::tanh(values_of(x)[static_cast<size_t>(i)]), 3e-7);
  }
}

// Dense 16-bit floats are read and written in place, others through blocks of floats: the same bits.
template <class T>
void check_small_floats(const Row& row, int64_t n, int wide) {  // operand `wide` is of float
  Array<T> in[3] = {Array<T>({n}), Array<T>({n}, 1), Array<T>({n}, 3)}, dense({n}, 1), apart({n, 2});
  Array<float> floats({n}, 1);
  fill_normal(floats, 9, 3);
  View views[3];
  for (int k = 0; k < row.arity; ++k) {
    fill_normal(in[k], static_cast<uint32_t>(k + n), 3);
    const float special[] = {0, -0.0F, INFINITY, -INFINITY, NAN, 1e-40F, -1e-39F, 3e38F, 6e-8F, -6e4F};
    for (int64_t i = 0; i < n; i += 5) in[k][i] = T(special[(i / 5 + k) % 10]);
    views[k] = k == wide ? floats.view() : in[k].view();
  }
  const std::span<const View> inputs(views, static_cast<size_t>(row.arity));
  reset_route_counts();
  pointwise(row.op, DType::kFloat32, View{apart.begin(), dtype_of<T>, {n}, {2}}, inputs);
  EXPECT_EQ(times_run("pointwise.small_floats"), 0U) << row.name;
  pointwise(row.op, DType::kFloat32, dense.view(), inputs);
  EXPECT_EQ(times_run("pointwise.small_floats"), 1U) << row.name;
  for (int64_t i = 0; i < n; ++i) {
    const T got = dense[i], want = apart[2 * i];
    if (!std::isnan(static_cast<float>(want)))
      ASSERT_EQ(got.bits, want.bits) << row.name << " element " << i << " of " << n << ", wide " << wide;
    else
      ASSERT_TRUE(std::isnan(static_cast<float>(got))) << row.name << " element " << i << " of " << n;
  }
}

TEST(Pointwise, SmallFloatsInPlaceAsThroughFloats) {
  for_each_target([] {
    for (const Row& row : kRows)
      for (int64_t n : {2, 15, 16, 31, 32, 33, 70, 1024, 1093})
        for (int wide = 0; row.floats && wide < row.arity + 1; ++wide) {  // the last time none
          check_small_floats<BFloat16>(row, n, wide);
          check_small_floats<Half>(row, n, wide);
        }
  });
}

}  // namespace
}  // namespace deepseek::kernels
