// Only correctly rounded operations (and fused multiply-add, which every target has) are used, so that AVX2 and AVX-512
// give the same bits. Polynomials: own minimax fits; the largest errors are given beside them.
#include "kernels/random/random_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/random/random_blocks.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::ScalableTag<int32_t>;
using U32 = hn::ScalableTag<uint32_t>;
using U64 = hn::ScalableTag<uint64_t>;

// A 64-bit lane holds one 32-bit Philox word in its lower half; what is above it does not matter until the end.
HWY_INLINE hn::Vec<U64> MulWords(hn::Vec<U64> words, hn::Vec<U32> multiplier) {
  return hn::MulEven(hn::BitCast(U32(), words), multiplier);
}

void PhiloxWords(RngState state, uint32_t stream, int64_t n, uint32_t* HWY_RESTRICT words) {
  const U64 d;
  const auto multiplier0 = hn::Set(U32(), 0xD2511F53u), multiplier1 = hn::Set(U32(), 0xCD9E8D57u);
  const auto low_half = hn::Set(d, uint64_t{0xFFFFFFFF});
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto* out = reinterpret_cast<uint64_t*>(words);
  for (int64_t c = 0; 4 * c < n; c += lanes) {
    const auto counter = hn::Add(hn::Iota(d, 0), hn::Set(d, state.offset + static_cast<uint64_t>(c)));
    auto x0 = counter, x1 = hn::ShiftRight<32>(counter), x2 = hn::Set(d, uint64_t{stream}), x3 = hn::Zero(d);
    uint32_t key0 = static_cast<uint32_t>(state.seed), key1 = static_cast<uint32_t>(state.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const auto p0 = MulWords(x0, multiplier0), p1 = MulWords(x2, multiplier1);
      x0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), x1), hn::Set(d, uint64_t{key0}));
      x2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), x3), hn::Set(d, uint64_t{key1}));
      x1 = p1;
      x3 = p0;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    const auto words01 = hn::Or(hn::And(x0, low_half), hn::ShiftLeft<32>(x1));
    const auto words23 = hn::Or(hn::And(x2, low_half), hn::ShiftLeft<32>(x3));
    hn::StoreInterleaved2(words01, words23, d, out + 2 * c);
  }
}

void UniformFromWords(const uint32_t* HWY_RESTRICT words, int64_t n, float low, float range, float limit,
                      float* HWY_RESTRICT out) {
  const F32 d;
  const auto scale = hn::Set(d, 0x1p-24f), vlow = hn::Set(d, low), vrange = hn::Set(d, range);
  const auto vlimit = hn::Set(d, limit);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto bits = hn::ShiftRight<8>(hn::LoadU(U32(), words + i));
    const auto u = hn::Mul(hn::ConvertTo(d, hn::BitCast(I32(), bits)), scale);
    hn::StoreU(hn::Min(hn::MulAdd(u, vrange, vlow), vlimit), d, out + i);
  }
}

// Natural logarithm of a normal positive float: u = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
template <class V>
HWY_INLINE V LogPositive(V u) {
  const F32 d;
  const I32 di;
  const auto bits = hn::BitCast(di, u);
  const auto exponent = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3F3504F3)));
  const auto f = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(exponent))), hn::Set(d, 1.0f));
  // (log(1 + f) - f + f^2 / 2) / f^3, error * f^2 <= 5.9e-9
  constexpr float kC[] = {0.333333164f, -0.250008106f, 0.200022861f, -0.166245535f,
                          0.141811967f, -0.131287679f, 0.128816217f, -0.0785954595f};
  auto p = hn::Set(d, kC[7]);
  for (int i = 6; i >= 0; --i) p = hn::MulAdd(p, f, hn::Set(d, kC[i]));
  const auto f2 = hn::Mul(f, f);
  const auto tail = hn::MulAdd(hn::Mul(f2, f), p, hn::Mul(f2, hn::Set(d, -0.5f)));
  return hn::MulAdd(hn::ConvertTo(d, exponent), hn::Set(d, 0.693147181f), hn::Add(f, tail));
}

// Sine and cosine of 2 pi * w / 2^32, reduced to [-pi/4, pi/4] exactly, in integers.
template <class V>
HWY_INLINE void SinCosTurn(hn::Vec<U32> w, V& sine, V& cosine) {
  const F32 d;
  const I32 di;
  const U32 du;
  const auto shifted = hn::Add(w, hn::Set(du, 1u << 29));
  const auto quadrant = hn::ShiftRight<30>(shifted);
  const auto rest = hn::Sub(hn::BitCast(di, hn::And(shifted, hn::Set(du, (1u << 30) - 1))), hn::Set(di, 1 << 29));
  const auto x = hn::Mul(hn::ConvertTo(d, rest), hn::Set(d, 1.57079633f * 0x1p-30f));
  const auto z = hn::Mul(x, x);
  // (sin(x) / x - 1) / x^2, error * x^2 <= 3.6e-9
  auto s = hn::MulAdd(z, hn::Set(d, -0.000195172979f), hn::Set(d, 0.008332178f));
  s = hn::MulAdd(s, z, hn::Set(d, -0.166666552f));
  s = hn::MulAdd(hn::Mul(s, z), x, x);
  // (cos(x) - 1 + x^2 / 2) / x^4, error * x^4 <= 9.6e-11
  auto c = hn::MulAdd(z, hn::Set(d, 2.44384501e-05f), hn::Set(d, -0.00138873677f));
  c = hn::MulAdd(c, z, hn::Set(d, 0.0416666456f));
  c = hn::MulAdd(hn::MulAdd(c, z, hn::Set(d, -0.5f)), z, hn::Set(d, 1.0f));
  const auto odd = hn::Ne(hn::And(quadrant, hn::Set(du, 1u)), hn::Zero(du));
  const auto swap = hn::RebindMask(d, odd);
  const auto sign_bit = [&](auto q) { return hn::BitCast(d, hn::ShiftLeft<30>(hn::And(q, hn::Set(du, 2u)))); };
  sine = hn::Xor(hn::IfThenElse(swap, c, s), sign_bit(quadrant));
  cosine = hn::Xor(hn::IfThenElse(swap, s, c), sign_bit(hn::Add(quadrant, hn::Set(du, 1u))));
}

void NormalFromWords(const uint32_t* HWY_RESTRICT words, int64_t n, float mean, float std, float* HWY_RESTRICT out) {
  const F32 d;
  const auto vmean = hn::Set(d, mean), vstd = hn::Set(d, std);
  for (int64_t i = 0; i < n; i += 2 * static_cast<int64_t>(hn::Lanes(d))) {
    hn::Vec<U32> radius_word, angle_word;
    hn::LoadInterleaved2(U32(), words + i, radius_word, angle_word);
    // (0, 1], at least 2^-32: the largest magnitude is 6.66
    const auto half_open = hn::ConvertTo(d, hn::BitCast(I32(), hn::ShiftRight<1>(radius_word)));
    const auto u = hn::Mul(hn::Add(half_open, hn::Set(d, 0.5f)), hn::Set(d, 0x1p-31f));
    const auto radius = hn::Sqrt(hn::Mul(LogPositive(u), hn::Set(d, -2.0f)));
    hn::Vec<F32> sine, cosine;
    SinCosTurn(angle_word, sine, cosine);
    hn::StoreInterleaved2(hn::MulAdd(hn::Mul(radius, cosine), vstd, vmean),
                          hn::MulAdd(hn::Mul(radius, sine), vstd, vmean), d, out + i);
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {

HWY_EXPORT(PhiloxWords);
HWY_EXPORT(UniformFromWords);
HWY_EXPORT(NormalFromWords);

void philox_words(RngState state, uint32_t stream, int64_t n, uint32_t* words) {
  HWY_DYNAMIC_DISPATCH(PhiloxWords)(state, stream, n, words);
}

void uniform_from_words(const uint32_t* words, int64_t n, float low, float range, float limit, float* out) {
  HWY_DYNAMIC_DISPATCH(UniformFromWords)(words, n, low, range, limit, out);
}

void normal_from_words(const uint32_t* words, int64_t n, float mean, float std, float* out) {
  HWY_DYNAMIC_DISPATCH(NormalFromWords)(words, n, mean, std, out);
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
