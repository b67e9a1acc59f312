// Scores of a tile before the softmax: soft-cap, mask, positions, dropout. Included once per SIMD target.
#if defined(DEEPSEEK_KERNELS_ATTENTION_ATTENTION_MASK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_MASK_INL_H_
#undef DEEPSEEK_KERNELS_ATTENTION_ATTENTION_MASK_INL_H_
#else
#define DEEPSEEK_KERNELS_ATTENTION_ATTENTION_MASK_INL_H_
#endif

#include "kernels/attention/attention-inl.h"
#include "runtime/allocator.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// A panel of rows and a tile of keys.
struct TileAt {
  int64_t b, key_head, row, rows;  // row: the panel's first
  int64_t key, keys;
  const int32_t* position;  // of each row of the panel
  bool ascending = true;    // the positions

  int32_t lowest() const { return ascending ? position[0] : *std::min_element(position, position + rows); }
  int32_t highest() const { return ascending ? position[rows - 1] : *std::max_element(position, position + rows); }
};

// A mask of numbers reaches up to the limits of its dtype, where no factor is left to multiply with.
inline bool AddsNumbers(const Attention& a) { return a.mask.data && a.mask.dtype != DType::kBool; }

// Whether scores are brought to natural units before the softmax; elsewhere they stay bare products.
inline bool NaturalScores(const Attention& a) {
  return a.softcap > 0 || AddsNumbers(a) || !(a.scale > 1e-20);  // the softmax takes the largest before it scales
}

// Two to the power of a score times this is its weight, but for a factor.
inline float ScoreUnit(const Attention& a) {
  return NaturalScores(a) ? kLog2e : static_cast<float>(a.scale * 1.4426950408889634);
}

class ScoreMask {
 public:
  ScoreMask(const Attention& a, const AttentionShape& s)
      : a_(a),
        s_(s),
        walk_(a.mask.data ? RowWalk(a.mask) : RowWalk(a.q)),
        unit_(ScoreUnit(a)),
        scratch_(static_cast<size_t>(2 * kKeyTile * panel_rows() + 2 * kKeyTile) * 4) {
    rows_ = scratch_.as<float>();
    turned_ = rows_ + kKeyTile * panel_rows();
    words_ = reinterpret_cast<uint32_t*>(turned_ + kKeyTile * panel_rows());
  }

  float unit() const { return unit_; }

  // Soft-cap and mask applied to bare products, -inf where a key takes no part. `slope`, where given, gets the
  // derivative of a capped score by score * scale.
  void apply(const TileAt& t, float* scores, float* slope) {
    const float scale = a_.softcap > 0 ? 1 : static_cast<float>(a_.scale);
    if (a_.softcap > 0)
      cap(t, scores, slope);
    else if (NaturalScores(a_) && !AddsNumbers(a_))
      for_each(t, scores, [&](VF x, int64_t, int64_t) HWY_ATTR { return hn::Mul(x, hn::Set(F32(), scale)); });
    if (a_.mask.data) add_mask(t, scores, scale);
    const int64_t last = t.key + t.keys - 1;
    if (!s_.all(t.lowest(), t.highest(), t.key, last)) cut(t, scores);
  }

  // [keys][panel]: 0 for a dropped weight, else 1 / (1 - p).
  const float* kept(const TileAt& t) {
    const auto limit = static_cast<uint64_t>(std::ceil((1 - a_.dropout_p) * 0x1p32));
    const auto scale = static_cast<float>(1 / (1 - a_.dropout_p));
    for (int64_t r = 0; r < t.rows; ++r) {
      const int64_t row = t.row + r, head = t.key_head * s_.group + row % s_.group;
      const int64_t index = ((t.b * s_.heads + head) * s_.queries + row / s_.group) * s_.keys + t.key;
      RngState state = a_.rng;
      state.offset += static_cast<uint64_t>(index) / 4;
      const int64_t skip = index % 4;
      philox_words(state, 0, skip + t.keys, words_);
      for (int64_t j = 0; j < t.keys; ++j) rows_[r * kKeyTile + j] = words_[skip + j] < limit ? scale : 0;
    }
    Transpose(rows_, kKeyTile, t.rows, t.keys, turned_, panel_rows());
    return turned_;
  }

 private:
  template <class F>
  HWY_INLINE void for_each(const TileAt& t, float* scores, F f) {
    const F32 d;
    for (int64_t j = 0; j < t.keys; ++j)
      for (int64_t r = 0; r < t.rows; r += lanes()) {
        float* p = scores + j * panel_rows() + r;
        hn::StoreU(f(hn::LoadU(d, p), j, r), d, p);
      }
  }

  void cap(const TileAt& t, float* scores, float* slope) {
    const F32 d;
    const auto in = hn::Set(d, static_cast<float>(a_.scale / a_.softcap)),
               out = hn::Set(d, static_cast<float>(a_.softcap)), one = hn::Set(d, 1.0f);
    for_each(t, scores, [&](VF x, int64_t j, int64_t r) HWY_ATTR {
      const auto y = VTanh(d, hn::Mul(x, in));
      if (slope) hn::StoreU(hn::NegMulAdd(y, y, one), d, slope + j * panel_rows() + r);
      return hn::Mul(y, out);
    });
  }

  template <class T>
  void mask_row(const T* from, int64_t step, int64_t n, float* to) {
    const F32 d;
    int64_t j = 0;
    for (; step == 1 && j + lanes() <= n; j += lanes()) {
      if constexpr (std::is_same_v<T, bool>) {
        const auto flags = hn::LoadU(hn::Rebind<uint8_t, I32>(), reinterpret_cast<const uint8_t*>(from + j));
        const auto off = hn::RebindMask(d, hn::Eq(hn::PromoteTo(I32(), flags), hn::Zero(I32())));
        hn::StoreU(hn::IfThenElseZero(off, hn::Set(d, -kInf)), d, to + j);
      } else {
        hn::StoreU(load_as(d, from + j), d, to + j);
      }
    }
    for (; j < n; ++j) {
      if constexpr (std::is_same_v<T, bool>)
        to[j] = from[j * step] ? 0 : -kInf;
      else
        to[j] = static_cast<float>(from[j * step]);
    }
  }
  void mask_row(int64_t at, int64_t n, float* to) {
    const int64_t step = a_.mask.strides[3];
    dispatch_among<bool, BFloat16, Half, float>("attention mask", a_.mask.dtype,
                                                [&]<class E>() { mask_row(a_.mask.as<E>() + at, step, n, to); });
  }

  // A key that is masked with -inf takes no part, whatever its score.
  void add_mask(const TileAt& t, float* scores, float scale) {
    const F32 d;
    int64_t before = 0;
    for (int64_t r = 0; r < t.rows; ++r) {
      const int64_t at = walk_.at(s_, t.b, t.key_head, t.row + r) + t.key * a_.mask.strides[3];
      float* to = rows_ + r * kKeyTile;
      if (r > 0 && at == before)
        std::copy_n(to - kKeyTile, t.keys, to);
      else
        mask_row(at, t.keys, to);
      before = at;
    }
    Transpose(rows_, kKeyTile, t.rows, t.keys, turned_, panel_rows());
    const bool add = AddsNumbers(a_);
    const auto vscale = hn::Set(d, scale), none = hn::Set(d, -kInf);
    for_each(t, scores, [&](VF x, int64_t j, int64_t r) HWY_ATTR {
      const auto m = hn::LoadU(d, turned_ + j * panel_rows() + r);
      return hn::IfThenElse(hn::Eq(m, none), none, add ? hn::MulAdd(x, vscale, m) : x);
    });
  }

  void cut(const TileAt& t, float* scores) {
    const F32 d;
    const I32 di;
    const auto none = hn::Set(d, -kInf);
    const auto end = hn::Set(di, s_.causal   ? 1
                                 : s_.window ? static_cast<int32_t>(s_.window)
                                             : kFar),
               begin = hn::Set(di, s_.window ? -static_cast<int32_t>(s_.window) : -kFar);
    for_each(t, scores, [&](VF x, int64_t j, int64_t r) HWY_ATTR {
      const auto distance =
          hn::Sub(hn::Set(di, static_cast<int32_t>(t.key + j)), hn::LoadU(di, t.position + r));  // key - query
      const auto seen = hn::And(hn::Lt(distance, end), hn::Gt(distance, begin));
      return hn::IfThenElse(hn::RebindMask(d, seen), x, none);
    });
  }

  static constexpr int32_t kFar = 0x7fffffff;
  const Attention& a_;
  const AttentionShape& s_;
  RowWalk walk_;
  const float unit_;
  Buffer scratch_;
  float *rows_, *turned_;
  uint32_t* words_;
};

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
