// Products of bytes against plain loops: exact, whatever the strides and the number of threads.
#include "kernels/gemm/int8/int8_gemm.h"

#include "runtime/cpu.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/quant_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

enum class Order { kRows, kColumns, kSpread };  // neighbours along a row, along a column, nowhere

template <class T>
struct Matrix {
  std::vector<T> held;
  View view;
  Matrix(int64_t rows, int64_t columns, Order order, uint32_t seed, bool ends = false) {
    const int64_t row = order == Order::kColumns ? 1
                        : order == Order::kRows  ? columns + 3
                                                 : 2 * columns + 1,
                  col = order == Order::kColumns ? rows + 5
                        : order == Order::kRows  ? 1
                                                 : 2;
    held.resize(static_cast<size_t>(rows * row + columns * col + 2));
    std::mt19937 engine(seed);
    for (T& v : held) v = ends ? std::numeric_limits<T>::lowest() : static_cast<T>(engine());
    view = {held.data() + 1, dtype_of<T>, {rows, columns}, {row, col}};
  }
};

template <class A>
void expect_equals_plain(int64_t m, int64_t n, int64_t k, Order a_order, Order b_order, uint32_t seed,
                         bool ends = false) {
  SCOPED_TRACE(std::string(name_of(dtype_of<A>)) + " " + std::to_string(m) + "x" + std::to_string(n) + "x" +
               std::to_string(k));
  Matrix<A> a(m, k, a_order, seed, ends);
  Matrix<int8_t> b(k, n, b_order, seed + 1, ends);
  const auto result = [&](auto&& f) {
    std::vector<int32_t> c(static_cast<size_t>(m * (n + 2) + 1), -7);
    f(View{c.data(), DType::kInt32, {m, n}, {n + 2, 1}}, a.view, b.view);
    return c;
  };
  const std::vector<int32_t> want = result(int8_gemm_plain);
  for (const int threads : {1, 2, 3}) {
    const Threads use(threads);
    set_grain_limit(threads > 1 ? 1 : 0);
    EXPECT_EQ(result(int8_gemm), want) << threads << " threads";  // also what lies behind a row
    set_grain_limit(0);
  }
}

TEST(Int8Gemm, EqualsPlainLoops) {
  uint32_t seed = 0;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                {3, 5, 2},
                                {12, 32, 8},
                                {13, 33, 9},
                                {25, 16, 64},
                                {2, 17, 65},
                                {11, 47, 1030},
                                {100, 300, 131},
                                {7, 130, 2100},
                                {0, 4, 3},
                                {4, 0, 3},
                                {5, 6, 0}})
    for (const Order a : {Order::kRows, Order::kColumns, Order::kSpread})
      for (const Order b : {Order::kRows, Order::kColumns, Order::kSpread}) {
        expect_equals_plain<int8_t>(m, n, k, a, b, ++seed);
        expect_equals_plain<uint8_t>(m, n, k, a, b, ++seed);
      }
  expect_equals_plain<int8_t>(2100, 3, 5, Order::kRows, Order::kRows, ++seed);  // rows in parts
}

// The largest products of all: nothing saturates, and sums wrap where 32 bits end.
TEST(Int8Gemm, EndsOfTheRange) {
  for (const int64_t k : {129, 4099, 131071, 131073, 300000})
    expect_equals_plain<int8_t>(2, 3, k, Order::kRows, Order::kColumns, 1, true);
  Matrix<int8_t> a(1, 131071, Order::kRows, 1, true), b(131071, 1, Order::kColumns, 1, true);
  int32_t c = 0;
  int8_gemm({&c, DType::kInt32, {1, 1}, {1, 1}}, a.view, b.view);
  EXPECT_EQ(c, 131071 * 16384);
}

TEST(Int8Gemm, Avx2AndVnniTilesAgree) {
  using namespace detail;
  if (!int8_tile_vnni(1)) GTEST_SKIP() << "no AVX-512 VNNI";
  std::mt19937 engine(3);
  const auto bytes = [&](size_t n) {
    std::vector<uint8_t> v(n);
    for (uint8_t& b : v) b = static_cast<uint8_t>(engine());
    return v;
  };
  const int64_t groups = 6, a_row = groups * kInt8Group + 8;
  const auto a = bytes(static_cast<size_t>(kInt8TileRows * a_row)), b = bytes(static_cast<size_t>(2 * groups * 64));
  for (int64_t rows = 1; rows <= kInt8TileRows; ++rows)
    for (const int64_t columns : {1, 15, 16, 17, 32})
      for (const bool add : {false, true}) {
        std::vector<int32_t> start(kInt8TileRows, -99), one(static_cast<size_t>(kInt8TileRows * 40), 5), other = one;
        Int8Tile t{rows,
                   groups,
                   reinterpret_cast<const int8_t*>(a.data()),
                   a_row,
                   {b.data(), b.data() + groups * 64},
                   start.data(),
                   one.data(),
                   40,
                   columns,
                   add};
        int8_tile_vnni(rows)(t);
        t.c = other.data();
        int8_tile_avx2(rows)(t);
        EXPECT_EQ(one, other) << rows << " rows, " << columns << " columns";
      }
}

}  // namespace
}  // namespace deepseek::kernels
