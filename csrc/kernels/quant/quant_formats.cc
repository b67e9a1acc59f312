// The formats: their rows, and what makes codes of a block of weights and values of codes.
//
// Scales are rounded to 11 significant bits (what float16 holds), so that code * scale is exact in float32 and
// quantizing what was dequantized gives the same codes and scales, bit for bit. Ties round to even. A block with no
// value above 2^-100 is zero: scale 0. A block that holds NaN or infinity gets the scale NaN, so all of it comes back
// as NaN.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/quant/qgemm_tile.h"

namespace deepseek::kernels {
namespace {

constexpr float kSmallest = 0x1p-100f;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// To 11 significant bits, ties to even.
float rounded_scale(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((u + 0x0fffu + ((u >> 13) & 1)) & ~0x1fffu);
}

// The value of the largest magnitude, the first of several; NaN when one is not finite; 0 when all are tiny.
struct Range {
  float most = 0, low = 0, high = 0;
};
Range range_of(const QuantBlock& b) {
  Range r;
  for (int64_t i = 0; i < b.rows; ++i)
    for (int64_t j = 0; j < b.count; ++j) {
      const float v = b.w[i * b.row + j];
      if (!std::isfinite(v)) return {kNan, kNan, kNan};
      if (std::abs(v) > std::abs(r.most)) r.most = v;
      r.low = std::min(r.low, v);
      r.high = std::max(r.high, v);
    }
  return std::abs(r.most) < kSmallest ? Range{} : r;
}

// v / scale to the nearest integer; a scale of 0 or NaN gives 0.
int32_t step_of(float v, float scale, int32_t low, int32_t high) {
  if (!(std::abs(scale) > 0)) return 0;
  return static_cast<int32_t>(std::clamp(std::nearbyint(v / scale), static_cast<float>(low), static_cast<float>(high)));
}

// Writes a row's 4-bit codes in order of k.
void put_nibble(uint8_t* row, int64_t k, int32_t code) {
  const auto c = static_cast<uint8_t>(code);
  row[k / 2] = k % 2 ? static_cast<uint8_t>(row[k / 2] | (c << 4)) : c;
}

// decode(codes, n, scale, zero, out) for each block of a row.
template <int kPerByte, class Decode>
void decode_blocks(const QuantRow& r, float* out, const Decode& decode) {
  for (int64_t b = 0, k = 0; k < r.k; ++b, k += r.block)
    decode(r.codes + k / kPerByte, std::min(r.block, r.k - k), r.scales[b], r.zeros ? r.zeros[b] : 0, out + k);
}
// What decodes a block is written for the vectoriser: no branch, and no pointer to another's memory.

// --- int8: scale = |most| / 127, code = round(w / scale)
QuantSide encode_int8(const QuantBlock& b) {
  const float scale = rounded_scale(std::abs(range_of(b).most) / 127);
  for (int64_t k = 0; k < b.count; ++k) b.codes[k] = static_cast<uint8_t>(step_of(b.w[k], scale, -127, 127));
  return {scale};
}
void decode_bytes(const uint8_t* __restrict codes, int64_t n, float scale, int32_t, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(codes[i]));
}
void decode_int8(QuantRow r, float* out) { decode_blocks<1>(r, out, decode_bytes); }

// --- int4: scale = most / -8, code = 8 + round(w / scale)
void decode_nibbles(const uint8_t* __restrict codes, int64_t n, float scale, int32_t zero, float* __restrict out) {
  for (int64_t i = 0; i < n / 2; ++i) {
    const int32_t both = codes[i];
    out[2 * i] = scale * static_cast<float>((both & 15) - zero);
    out[2 * i + 1] = scale * static_cast<float>((both >> 4) - zero);
  }
  if (n % 2) out[n - 1] = scale * static_cast<float>((codes[n / 2] & 15) - zero);
}
QuantSide encode_int4(const QuantBlock& b) {
  float scale = rounded_scale(range_of(b).most / -8);
  if (scale == 0) scale = 0;  // not -0
  for (int64_t k = 0; k < b.count; ++k) put_nibble(b.codes, k, 8 + step_of(b.w[k], scale, -8, 7));
  return {scale};
}
void decode_int4(QuantRow r, float* out) {
  decode_blocks<2>(r, out, [](const uint8_t* codes, int64_t n, float scale, int32_t, float* to) {
    decode_nibbles(codes, n, scale, 8, to);
  });
}

// --- int4_zero: scale = (max(w, 0) - min(w, 0)) / 15, zero = round(-min / scale); the ends get the codes 0 and 15
QuantSide encode_int4_zero(const QuantBlock& b) {
  const Range r = range_of(b);
  const float scale =
      rounded_scale(static_cast<float>((static_cast<double>(r.high) - r.low) / 15));  // high - low may overflow
  const int32_t zero = step_of(-r.low, scale, 0, 15);
  for (int64_t k = 0; k < b.count; ++k) {
    int32_t code = zero + step_of(b.w[k], scale, -zero, 15 - zero);
    // Both ends exactly, whatever was rounded: the block comes back the same.
    if (scale > 0 && b.w[k] == r.low) code = 0;
    if (scale > 0 && b.w[k] == r.high && r.high > 0) code = 15;
    put_nibble(b.codes, k, code);
  }
  return {scale, static_cast<uint8_t>(zero)};
}
void decode_int4_zero(QuantRow r, float* out) { decode_blocks<2>(r, out, decode_nibbles); }

// --- fp8: scale = |most| / 448, code = e4m3(w / scale)
QuantSide encode_fp8(const QuantBlock& b) {
  const float scale = rounded_scale(std::abs(range_of(b).most) / 448);
  for (int64_t i = 0; i < b.rows; ++i)
    for (int64_t k = 0; k < b.count; ++k)
      b.codes[i * b.code_row + k] = Float8E4M3(scale > 0 ? b.w[i * b.row + k] / scale : 0.0f).bits;
  return {scale};
}
// Exact: a float's exponent field takes e4m3's, the product moves the bias and normalises subnormals.
void decode_e4m3(const uint8_t* __restrict codes, int64_t n, float scale, int32_t, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = static_cast<int8_t>(codes[i]), magnitude = code & 0x7f;
    const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
    const int32_t nan = -static_cast<int32_t>(magnitude == 0x7f) & 0x7fc00000;
    const int32_t sign = code & std::numeric_limits<int32_t>::min();
    out[i] = scale * std::bit_cast<float>(std::bit_cast<int32_t>(value) | nan | sign);
  }
}
void decode_fp8(QuantRow r, float* out) { decode_blocks<1>(r, out, decode_e4m3); }

// --- codes as qgemm reads them
constexpr int64_t kApart = PackedQuant::kColumns * 4;  // from a row's word to its next, in bytes

// int8 + 128.
void pack_bytes(const uint8_t* codes, uint8_t* words) {
  for (int j = 0; j < 8; ++j) {
    uint32_t x;
    std::memcpy(&x, codes + 4 * j, 4);
    x ^= 0x80808080u;
    std::memcpy(words + j * kApart, &x, 4);
  }
}
void unpack_bytes(const uint8_t* words, uint8_t* codes) {
  for (int k = 0; k < 32; ++k) codes[k] = static_cast<uint8_t>(words[k / 4 * kApart + k % 4] ^ 0x80);
}

// Half bytes of the lower 16 bits, one a byte.
uint32_t spread(uint32_t x) {
  x = (x | x << 8) & 0x00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0fu;
}
// 4 k in the lower halves of a word, the next 4 in the upper.
void pack_nibbles(const uint8_t* codes, uint8_t* words) {
  for (int j = 0; j < 4; ++j) {
    uint32_t x;
    std::memcpy(&x, codes + 4 * j, 4);
    x = spread(x & 0xffffu) | spread(x >> 16) << 4;
    std::memcpy(words + j * kApart, &x, 4);
  }
}
void unpack_nibbles(const uint8_t* words, uint8_t* codes) {
  for (int k = 0; k < 32; ++k) put_nibble(codes, k, (words[k / 8 * kApart + k % 4] >> (k / 4 % 2 * 4)) & 15);
}

constexpr PackedCodes kBytes = {8, 128, pack_bytes, unpack_bytes, qtile_bytes_avx2, qtile_bytes_vnni};
constexpr PackedCodes kNibbles = {4, 8, pack_nibbles, unpack_nibbles, qtile_nibbles_avx2, qtile_nibbles_vnni};

constexpr QuantFormat kFormats[] = {
    {.name = "int8",
     .doc = "-127 to 127",
     .code = DType::kInt8,
     .per_byte = 1,
     .rows = 1,
     .has_zeros = false,
     .blocks = {0, 32, 64, 128},
     .encode = encode_int8,
     .decode = decode_int8,
     .packed = &kBytes},
    {.name = "int4",
     .doc = "0 to 15 for -8 to 7; the largest value is -8 steps",
     .code = DType::kUInt8,
     .per_byte = 2,
     .rows = 1,
     .has_zeros = false,
     .blocks = {32, 64, 128, -1},
     .encode = encode_int4,
     .decode = decode_int4,
     .packed = &kNibbles},
    {.name = "int4_zero",
     .doc = "0 to 15, with a zero point: for values of one sign",
     .code = DType::kUInt8,
     .per_byte = 2,
     .rows = 1,
     .has_zeros = true,
     .blocks = {32, 64, 128, -1},
     .encode = encode_int4_zero,
     .decode = decode_int4_zero,
     .packed = &kNibbles},
    {.name = "fp8",
     .doc = "e4m3, one scale for a tile of 128 x 128 (DeepSeek-V3's format)",
     .code = DType::kFloat8E4M3,
     .per_byte = 1,
     .rows = 128,
     .has_zeros = false,
     .blocks = {128, -1, -1, -1},
     .encode = encode_fp8,
     .decode = decode_fp8,
     .packed = nullptr},
};

}  // namespace

bool QuantFormat::takes(int64_t block) const { return block >= 0 && std::ranges::find(blocks, block) != blocks.end(); }
int64_t QuantFormat::index() const { return this - kFormats; }

std::span<const QuantFormat> quant_formats() { return kFormats; }

const QuantFormat* find_format(std::string_view name) {
  for (const QuantFormat& f : kFormats)
    if (name == f.name) return &f;
  return nullptr;
}

}  // namespace deepseek::kernels
