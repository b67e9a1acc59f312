// kernels/nn/rope.h against one pair at a time, on every SIMD target: bits, as both round each product and sum.
#include "kernels/nn/rope.h"

#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace testing;

// Element (i0, i1, i2, i3) of a four-dimensional view.
template <class T>
T& element(const View& v, int64_t i0, int64_t i1, int64_t i2, int64_t i3) {
  return v.as<T>()[i0 * v.strides[0] + i1 * v.strides[1] + i2 * v.strides[2] + i3 * v.strides[3]];
}

View broadcast(View table, const Dims& sizes) {
  View v{table.data, table.dtype, sizes, Dims::filled(4, 0)};
  for (int d = 0; d < table.ndim(); ++d)
    if (table.sizes[d] != 1 || d == table.ndim() - 1) v.strides[4 - table.ndim() + d] = table.strides[d];
  v.sizes.back() /= 2;
  return v;
}

template <class T, class C>
void check(const View& in, const View& table_cos, const View& table_sin, bool interleaved) {
  Array<T> out(in.sizes, 1);
  const View y = out.view(), cos = broadcast(table_cos, in.sizes), sin = broadcast(table_sin, in.sizes);
  rope(y, in, cos, sin, interleaved);
  const int64_t half = in.sizes[3] / 2;
  for (int64_t i = 0; i < in.sizes[0]; ++i)
    for (int64_t j = 0; j < in.sizes[1]; ++j)
      for (int64_t t = 0; t < in.sizes[2]; ++t)
        for (int64_t k = 0; k < half; ++k) {
          const int64_t first = interleaved ? 2 * k : k, second = interleaved ? 2 * k + 1 : k + half;
          const C a = C(element<T>(in, i, j, t, first)), b = C(element<T>(in, i, j, t, second));
          const C c = element<C>(cos, i, j, t, k), s = element<C>(sin, i, j, t, k);
          const volatile C ac = a * c, bs = b * s, bc = b * c, as = a * s;  // no contraction in this file either
          ASSERT_EQ(double(T(ac - bs)), double(element<T>(y, i, j, t, first)))
              << half << ' ' << interleaved << ' ' << k;
          ASSERT_EQ(double(T(bc + as)), double(element<T>(y, i, j, t, second)))
              << half << ' ' << interleaved << ' ' << k;
        }
}

template <class T, class C>
void check_layouts() {
  for (int64_t half : {1, 3, 7, 8, 16, 17, 33, 64})
    for (bool interleaved : {false, true}) {
      Array<T> x({2, 5, 3, 2 * half}, 1);
      Array<C> cos({5, half}, 1), sin({5, half}, 1), per_head({3, 1, half}), own({2, 3, 5, half});
      fill_normal(x, 1);
      fill_normal(cos, 2);
      fill_normal(sin, 3);
      fill_normal(per_head, 4);
      fill_normal(own, 5);
      const View heads_first = transposed(x.view(), 1, 2);  // [B, T, H, D] seen as [B, H, T, D]
      check<T, C>(heads_first, cos.view(), sin.view(), interleaved);
      check<T, C>(heads_first, per_head.view(), per_head.view(), interleaved);
      check<T, C>(heads_first, own.view(), own.view(), interleaved);
      Array<T> columns({2 * half, 2, 3, 5});
      fill_normal(columns, 6);
      View c = columns.view();
      c.sizes = {2, 3, 5, 2 * half};
      c.strides = {15, 5, 1, 30};
      check<T, C>(c, cos.view(), sin.view(), interleaved);
      check<T, C>(sliced(heads_first, 2, -1), cos.view(), sin.view(), interleaved);
    }
}

TEST(Rope, LayoutsAndDTypes) {
  for_each_target([] {
    check_layouts<float, float>();
    check_layouts<double, double>();
    check_layouts<BFloat16, float>();
    check_layouts<Half, float>();
  });
}

TEST(Rope, SameBitsForAnyThreadCount) {
  Array<float> x({4, 8, 200, 64}), cos({200, 32}), sin({200, 32});
  fill_normal(x, 1);
  fill_normal(cos, 2);
  fill_normal(sin, 3);
  Array<float> one(x.sizes), two(x.sizes);
  const View c = broadcast(cos.view(), x.sizes), s = broadcast(sin.view(), x.sizes);
  set_num_threads(1);
  rope(one.view(), x.view(), c, s, false);
  set_num_threads(2);
  rope(two.view(), x.view(), c, s, false);
  EXPECT_EQ(one.data, two.data);
}

}  // namespace
}  // namespace deepseek::kernels
