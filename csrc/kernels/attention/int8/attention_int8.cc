#include "kernels/attention/int8/attention_int8.h"

#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/attention/attention_plain.h"
#include "kernels/attention/int8/attention_int8_vnni.h"
#include "kernels/loops/cast.h"
#include "kernels/quant/quantize.h"
#include "kernels/simd/routes.h"
#include "runtime/allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/int8/attention_int8.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention_block-inl.h"
#include "kernels/gemm/tile/int16_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// Products with int8 keys and values: by VNNI, four features a word, or two features of 16 bits a word.
template <class E, bool kVnni>
class Int8Products {
  static constexpr int64_t kPack = kVnni ? 4 : 2, kStep = 16;  // features a word, keys at a time
  using Part = std::conditional_t<kVnni, int8_t, int16_t>;

 public:
  using Element = E;
  Int8Products(const Attention& a, const AttentionShape& s, int64_t rows)
      : a_(a),
        s_(s),
        words_((s.d + kPack - 1) / kPack),
        width_(round_up(s.dv, lanes())),
        walk_(a.q),
        panel_words_(2 * panel_rows() * words_),
        queries_(static_cast<size_t>(rows / panel_rows() * panel_words_) * 4),
        starts_(static_cast<size_t>(2 * rows) * 4),
        scales_(static_cast<size_t>(rows) * 4),
        query_(static_cast<size_t>(s.d) * 4),
        query_codes_(static_cast<size_t>(s.d) * 2),
        key_words_(static_cast<size_t>(kKeyTile * words_) * 4),
        value_codes_(static_cast<size_t>(kKeyTile * width_)) {}

  void begin(int64_t b, int64_t key_head, int64_t first, int64_t count) {
    count_ = count;
    lanes_ = kVnni && count > 4 ? 16 : kVnni ? 8 : lanes();
    if constexpr (kVnni) vnni_ = int8_scores_vnni(lanes_);
    const int64_t panels = (count + panel_rows() - 1) / panel_rows();
    std::fill_n(queries_.as<uint32_t>(), panels * panel_words_, 0u);
    std::fill_n(starts_.as<int32_t>(), 2 * panel_rows() * panels, 0);
    std::fill_n(scales_.as<float>(), panel_rows() * panels, 0.0f);
    for (int64_t r = 0; r < count; ++r) take_query(a_.q.template as<E>() + walk_.at(s_, b, key_head, first + r), r);
    const auto head = [&]<class T>(const View& v, T*& to) {
      to = v.as<T>() + b * v.strides[0] + key_head * v.strides[1];
    };
    head(a_.k, k_), head(a_.v, v_), head(a_.k_scale, k_scale_), head(a_.v_scale, v_scale_);
  }

  void take_keys(int64_t key, int64_t n) {
    key_ = key;
    keys_ = k_ + key * a_.k.strides[2], key_row_ = a_.k.strides[2];
    values_ = v_ + key * a_.v.strides[2], value_row_ = a_.v.strides[2];
    if (!kVnni || s_.d % kPack != 0) {  // whole words
      auto* to = key_words_.as<Part>();
      for (int64_t j = 0; j < n; ++j, to += words_ * kPack)
        std::fill(std::copy_n(keys_ + j * key_row_, s_.d, to), to + words_ * kPack, Part{0});
      keys_ = key_words_.as<int8_t>(), key_row_ = words_ * 4;
    }
    if (width_ != s_.dv) {  // whole vectors
      auto* to = value_codes_.as<int8_t>();
      for (int64_t j = 0; j < n; ++j)
        std::memcpy(to + j * width_, values_ + j * value_row_, static_cast<size_t>(s_.dv));
      values_ = to, value_row_ = width_;
    }
  }
  const float* factors() const { return v_scale_ + key_; }

  void scores(int64_t p, int64_t n, float* to) {
    const Int8Panel panel{.words = queries_.as<uint32_t>() + p * panel_words_,
                          .start = starts_.as<int32_t>() + 2 * p * panel_rows(),
                          .scale = scales_.as<float>() + p * panel_rows(),
                          .vecs = vecs(p),
                          .count = words_};
    NearRowsPrefetch ahead = next_rows(k_, a_.k.strides[2], s_.d);
    for (int64_t j = 0; j < n; j += kStep) {
      const int64_t some = std::min(kStep, n - j);
      if constexpr (kVnni)
        vnni_(some, keys_ + j * key_row_, key_row_, k_scale_ + key_ + j, panel, to + j * panel_rows());
      else
        PairScores(some, keys_ + j * key_row_, k_scale_ + key_ + j, panel, to + j * panel_rows());
      ahead.advance(kStep * s_.d / 64 + 1);
    }
  }
  void values(int64_t p, int64_t n, const float* weights, const float* keep, float* to, bool fresh) {
    NearRowsPrefetch ahead = next_rows(v_, a_.v.strides[2], s_.dv);
    const int64_t lines = kStep * panel_rows() / 64 + 1;
    for (int64_t j = 0; j < n; j += kStep)
      for (int64_t c = 0; c < width_; c += panel_rows()) {
        FloatMath::values(rows_of(p), std::min(panel_rows(), width_ - c), std::min(kStep, n - j),
                          weights + j * panel_rows(), values_ + j * value_row_ + c, value_row_, j == 0 ? keep : nullptr,
                          to + c, width_, fresh && j == 0);
        ahead.advance(lines);
      }
  }

 private:
  int64_t rows_of(int64_t p) const { return std::min(panel_rows(), count_ - p * panel_rows()); }
  int64_t half() const { return lanes_ / 2; }  // rows a vector
  int64_t vecs(int64_t p) const { return (rows_of(p) + half() - 1) / half(); }
  bool few() const { return count_ <= few_rows::kMaxRows; }
  // Those of the next tile, which come from memory where the rows that read them are few.
  NearRowsPrefetch next_rows(const int8_t* codes, int64_t row, int64_t size) const {
    const int64_t next = key_ + kKeyTile;
    return RowsAhead(codes + next * row, few() ? std::min(kKeyTile, s_.keys - next) : 0, size, row);
  }

  void take_query(const E* from, int64_t r) {
    ConvertRow(from, s_.d, s_.d, query_.as<float>());
    auto* codes = query_codes_.as<int16_t>();
    scales_.as<float>()[r] = quantize_to_int16(query_.as<float>(), s_.d, codes);
    const int64_t p = r / panel_rows(), in_panel = r % panel_rows(), width = vecs(p) * lanes_,
                  at = in_panel / half() * lanes_ + in_panel % half();
    auto* words = reinterpret_cast<Part*>(queries_.as<uint32_t>() + p * panel_words_);
    int32_t high_sum = 0, low_sum = 0;
    for (int64_t i = 0; i < s_.d; ++i) {
      const int high = (codes[i] + 128) >> 8, low = codes[i] - 256 * high;
      Part* to = words + (i / kPack * width + at) * kPack + i % kPack;
      to[0] = static_cast<Part>(high), to[half() * kPack] = static_cast<Part>(low);
      high_sum += high, low_sum += low;
    }
    int32_t* start = starts_.as<int32_t>() + 2 * p * panel_rows() + at;
    if (kVnni) start[0] = -128 * high_sum, start[half()] = -128 * low_sum;  // keys get 128 added
  }

  // As the kernel for VNNI; keys are words of two features.
  static void PairScores(int64_t n, const int8_t* keys, const float* k_scale, const Int8Panel& panel, float* out) {
    const int64_t row = panel.count * 4;
    for (int64_t v = 0; v < panel.vecs; ++v) {
      int64_t j = 0;
      for (; j + 4 <= n; j += 4) PairTile<4>(keys + j * row, k_scale + j, panel, v, out + j * panel_rows());
      for (; j < n; ++j) PairTile<1>(keys + j * row, k_scale + j, panel, v, out + j * panel_rows());
    }
  }
  template <int R>
  static void PairTile(const int8_t* keys, const float* k_scale, const Int8Panel& panel, int64_t v, float* out) {
    const F32 d;
    const hn::Half<F32> dh;
    const int64_t at = v * lanes() / 2;
    const TileOperands<Int16Dot> x{panel.count, reinterpret_cast<const uint32_t*>(keys), panel.count,
                                   panel.words + v * lanes(), panel.vecs * lanes()};
    run_tile<Int16Dot, R, 1>(
        x, [](int, int) __attribute__((always_inline)) { return Int16Dot::zero(); },
        [&](int r, int, hn::Vec<I32> dot) __attribute__((always_inline)) {
          const auto sums = hn::ConvertTo(d, dot);
          const auto whole = hn::MulAdd(hn::LowerHalf(dh, sums), hn::Set(dh, 256.0f), hn::UpperHalf(dh, sums));
          hn::StoreU(hn::Mul(hn::Mul(whole, hn::LoadU(dh, panel.scale + at)), hn::Set(dh, k_scale[r])), dh,
                     out + r * panel_rows() + at);
        });
  }

  const Attention& a_;
  const AttentionShape& s_;
  const int64_t words_, width_;
  const RowWalk walk_;
  const int64_t panel_words_;
  Buffer queries_, starts_, scales_, query_, query_codes_, key_words_, value_codes_;
  Int8ScoresFn vnni_ = nullptr;
  int8_t *k_ = nullptr, *v_ = nullptr;
  float *k_scale_ = nullptr, *v_scale_ = nullptr;
  const int8_t *keys_ = nullptr, *values_ = nullptr;  // the tile's
  int64_t key_row_ = 0, value_row_ = 0, key_ = 0, count_ = 0, lanes_ = 0;
};

template <bool kVnni>
void Int8Forward(const Attention& a, const View& out, const View& lse) {
  dispatch_among<BFloat16, Half, float>("attention", a.q.dtype, [&]<class E>() {
    ForwardAs<Int8Products<E, kVnni>>(a, out, {lse, {}});
  });
}

void AttentionInt8(const Attention& a, const View& out, const View& lse) {
#if HWY_TARGET <= HWY_AVX3
  if (int8_scores_vnni(16)) {
    count_route(Route::kAttentionInt8Vnni);
    return Int8Forward<true>(a, out, lse);
  }
#endif
  DS_COUNT_ROUTE(AttentionInt8Pairs);
  Int8Forward<false>(a, out, lse);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AttentionInt8);

void attention_int8_forward(const Attention& a, const View& out, const View& lse) {
  if (a.q.numel() == 0 && out.numel() == 0) return;
  HWY_DYNAMIC_DISPATCH(AttentionInt8)(a, out, lse);
}

namespace {

// Codes times scales in double, contiguous.
std::vector<double> dequantized(const View& codes, const View& scales) {
  std::vector<double> values;
  for (int64_t b = 0; b < codes.sizes[0]; ++b)
    for (int64_t h = 0; h < codes.sizes[1]; ++h)
      for (int64_t j = 0; j < codes.sizes[2]; ++j)
        for (int64_t i = 0; i < codes.sizes[3]; ++i)
          values.push_back(
              static_cast<double>(
                  codes.as<int8_t>()[b * codes.strides[0] + h * codes.strides[1] + j * codes.strides[2] + i]) *
              static_cast<double>(scales.as<float>()[b * scales.strides[0] + h * scales.strides[1] + j]));
  return values;
}

// Queries as their 16-bit codes say, contiguous.
std::vector<double> rounded(const View& q) {
  std::vector<double> values;
  const auto d = static_cast<size_t>(q.sizes[3]);
  std::vector<float> row(d);
  std::vector<int16_t> codes(d);
  for (int64_t b = 0; b < q.sizes[0]; ++b)
    for (int64_t h = 0; h < q.sizes[1]; ++h)
      for (int64_t i = 0; i < q.sizes[2]; ++i) {
        dispatch(q.dtype, [&]<class T>() {
          const T* from = q.as<T>() + b * q.strides[0] + h * q.strides[1] + i * q.strides[2];
          for (size_t c = 0; c < d; ++c) row[c] = convert<float>(from[c]);
        });
        const double scale = quantize_to_int16(row.data(), q.sizes[3], codes.data());
        for (const int16_t code : codes) values.push_back(scale * code);
      }
  return values;
}

View doubles(std::vector<double>& values, const Dims& sizes) {
  return {values.data(), DType::kFloat64, sizes, contiguous_strides(sizes)};
}

}  // namespace

void attention_int8_forward_plain(const Attention& a, const View& out, const View& lse) {
  std::vector<double> q = rounded(a.q), k = dequantized(a.k, a.k_scale), v = dequantized(a.v, a.v_scale);
  Attention wide = a;
  wide.q = doubles(q, a.q.sizes), wide.k = doubles(k, a.k.sizes), wide.v = doubles(v, a.v.sizes);
  attention_forward_plain(wide, out, lse);
}

}  // namespace deepseek::kernels
#endif
