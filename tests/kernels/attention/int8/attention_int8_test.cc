// kernels/attention/int8/attention_int8.h against its slow twin and against attention over floats, and the bits of a
// row.
#include "kernels/attention/int8/attention_int8.h"

#include "kernels/attention/attention_plain.h"
#include "kernels/quant/quantize.h"
#include "tests/kernels/attention/attention_testing.h"

namespace deepseek::kernels {
namespace {
using namespace attention_testing;

// A problem whose keys and values are also there as int8.
template <class T>
struct Int8Problem : Problem<T> {
  Array<int8_t> k_codes, v_codes;
  Array<float> k_scale, v_scale;
  explicit Int8Problem(const Case& of, int lead = 0)
      : Problem<T>(of, lead),
        k_codes(this->k.sizes, lead),
        v_codes(this->v.sizes, lead),
        k_scale({of.batch, of.key_heads, of.keys}),
        v_scale(k_scale.sizes) {
    quantize_rows(this->k, k_codes, k_scale), quantize_rows(this->v, v_codes, v_scale);
  }
  static void quantize_rows(const Array<T>& from, Array<int8_t>& codes, Array<float>& scales) {
    const int64_t d = from.sizes[3];
    std::vector<float> row(static_cast<size_t>(d));
    for (int64_t i = 0; i < scales.numel(); ++i) {
      for (int64_t c = 0; c < d; ++c) row[static_cast<size_t>(c)] = static_cast<float>(from[i * d + c]);
      scales[i] = quantize_activations(row.data(), d, codes.begin() + i * d);
    }
  }
  Attention args() {
    Attention a = Problem<T>::args();
    a.k = k_codes.view(), a.v = v_codes.view(), a.k_scale = k_scale.view(), a.v_scale = v_scale.view();
    return a;
  }
  void run() { attention_int8_forward(args(), this->out.view(), this->lse.view()); }
};

std::vector<Case> int8_cases() {
  std::vector<Case> all;
  for (const Case& c : cases())
    if (c.dropout == 0) all.push_back(c);
  for (const int64_t rows : {4, 5, 8, 9, 33})  // halves of vectors, whole ones, several
    all.push_back({.batch = 1, .heads = rows, .key_heads = 1, .queries = 1, .keys = 531, .d = 20, .dv = 16});
  return all;
}

template <class T>
void expect_as_plain(double tolerance) {
  for (const Case& c : int8_cases())
    for (const int lead : {0, 1}) {
      std::ostringstream name;
      name << c;
      SCOPED_TRACE(name.str());
      Int8Problem<T> p(c, lead);
      Array<float> out(p.out.sizes), lse(p.lse.sizes);
      p.run();
      attention_int8_forward_plain(p.args(), out.view(), lse.view());
      expect_near(values_of(p.out.view()), values_of(out.view()), tolerance, "out");
      expect_near(values_of(p.lse.view()), values_of(lse.view()), 4e-6, "lse");
    }
}

TEST(AttentionInt8, EqualsPlain) {
  for_each_target([] {
    expect_as_plain<float>(4e-6);
    expect_as_plain<BFloat16>(8e-3);
    expect_as_plain<Half>(1e-3);
  });
}

TEST(AttentionInt8, IsNearAttentionOverFloats) {
  for_each_target([] {
    for (const int64_t keys : {64, 700, 4096}) {
      Int8Problem<float> p({.batch = 1, .heads = 4, .key_heads = 1, .queries = 3, .keys = keys, .d = 128, .dv = 128});
      p.c.scale = 0.088;
      p.run();
      Array<float> out(p.out.sizes), lse(p.lse.sizes);
      attention_forward(p.Problem<float>::args(), out.view(), lse.view());
      double wrong = 0, size = 0;
      for (int64_t i = 0; i < out.numel(); ++i)
        wrong += std::pow(out[i] - p.out[i], 2.0), size += std::pow(static_cast<double>(out[i]), 2.0);
      EXPECT_LT(std::sqrt(wrong / size), 0.015) << keys;
    }
  });
}

TEST(AttentionInt8, BitsDoNotDependOnThreads) {
  for_each_target([] {
    for (const Case& c : int8_cases()) {
      Int8Problem<float> p(c);
      set_grain_limit(1);
      expect_same_bits<float>(p.out, [&] { p.run(); });
      set_grain_limit(0);
    }
  });
}

// One query, with the cache cut behind its position and inside a longer one, gives the row of the whole sequence.
TEST(AttentionInt8, OneQueryHasTheBitsOfItsRowInTheWhole) {
  for_each_target([] {
    for (const int64_t heads : {1, 4, 7, 16})
      for (const int64_t d : {64, 38}) {
        Int8Problem<BFloat16> p({.batch = 2,
                                 .heads = heads,
                                 .key_heads = 1,
                                 .queries = 90,
                                 .keys = 690,
                                 .d = d,
                                 .dv = d,
                                 .causal = true,
                                 .start = 600});
        p.run();
        for (const int64_t i : {0, 41, 89}) {
          Attention a = p.args();
          a.query_start += i, a.q.data = a.q.at(i * a.q.strides[2]), a.q.sizes[2] = 1;
          a.k.sizes[2] = a.v.sizes[2] = a.k_scale.sizes[2] = a.v_scale.sizes[2] = 601 + i;
          Array<BFloat16> out({2, heads, 1, d});
          Array<float> lse({2, heads, 1});
          attention_int8_forward(a, out.view(), lse.view());
          for (int64_t r = 0; r < 2 * heads; ++r)
            EXPECT_EQ(std::memcmp(&out[r * d], &p.out[(r * 90 + i) * d], static_cast<size_t>(d) * 2), 0)
                << "query " << i << " row " << r << " of " << heads;
        }
      }
  });
}

TEST(AttentionInt8, KeepsNanAndIgnoresMaskedNan) {
  for_each_target([] {
    Int8Problem<float> p({.causal = true});
    p.q[0] = NAN;         // poisons query 0 of head 0 alone
    p.k_scale[60] = NAN;  // a key after the last query
    p.run();
    const auto out = values_of(p.out.view());
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i < static_cast<size_t>(p.c.dv)) << i;
  });
}

// The full range of codes, also -128, which quantize_rows() does not give.
TEST(AttentionInt8, TakesEveryCode) {
  for_each_target([] {
    Int8Problem<float> p({.d = 576, .dv = 512, .scale = 1e-5});
    fill_integers(p.k_codes, 8, -128, 127), fill_integers(p.v_codes, 9, -128, 127);
    std::fill_n(p.k_codes.begin(), 576, int8_t{-128});
    std::fill_n(p.q.begin(), 576, 3.0f);
    p.run();
    Array<float> out(p.out.sizes), lse(p.lse.sizes);
    attention_int8_forward_plain(p.args(), out.view(), lse.view());
    expect_near(values_of(p.out.view()), values_of(out.view()), 4e-6, "out");
  });
}

}  // namespace
}  // namespace deepseek::kernels
