// Order-preserving unsigned keys (NaN above everything, -0 equal to 0), and sorting of (key, position) pairs. A pair's
// position breaks ties, so every order here is total and every algorithm gives the stable result.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "base/dtype.h"
#include "runtime/allocator.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {

template <int kBytes>
struct UnsignedOfSize;
template <>
struct UnsignedOfSize<1> {
  using type = uint8_t;
};
template <>
struct UnsignedOfSize<2> {
  using type = uint16_t;
};
template <>
struct UnsignedOfSize<4> {
  using type = uint32_t;
};
template <>
struct UnsignedOfSize<8> {
  using type = uint64_t;
};
template <class T>
using Key = typename UnsignedOfSize<sizeof(T)>::type;

template <class T>
inline constexpr bool kFloatKey = std::is_floating_point_v<T> || is_small_float<T>;
template <class T>
inline constexpr Key<T> kSignBit = static_cast<Key<T>>(Key<T>(1) << (8 * sizeof(T) - 1));
template <class T>
inline constexpr Key<T> kNanKey = static_cast<Key<T>>(~Key<T>(0));

// Bits of +infinity; e4m3fn has none: its NaN is the one magnitude above 0x7e.
template <class T>
constexpr Key<T> infinity_bits() {
  if constexpr (std::is_same_v<T, Float8E4M3>)
    return 0x7e;
  else if constexpr (std::is_same_v<T, Float8E5M2>)
    return 0x7c;
  else if constexpr (std::is_same_v<T, Half>)
    return 0x7c00;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return 0x7f80;
  else
    return std::bit_cast<Key<T>>(std::numeric_limits<T>::infinity());
}

template <class T>
constexpr Key<T> to_key(T value) {
  using K = Key<T>;
  if constexpr (std::is_same_v<T, bool>) {
    return value;
  } else if constexpr (std::is_unsigned_v<T>) {
    return value;
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<K>(static_cast<K>(value) ^ kSignBit<T>);
  } else {
    const K bits = std::bit_cast<K>(value);
    const K magnitude = static_cast<K>(bits & static_cast<K>(~kSignBit<T>));
    // Magnitudes count up and down from the sign bit, where -0 and 0 meet.
    const K ordered = static_cast<K>(bits & kSignBit<T> ? kSignBit<T> - magnitude : kSignBit<T> + magnitude);
    return magnitude > infinity_bits<T>() ? kNanKey<T> : ordered;
  }
}

// The value of a key; false where the key does not tell it (zeros have a sign, NaNs a payload).
template <class T>
constexpr bool from_key(Key<T> key, T* value) {
  using K = Key<T>;
  if constexpr (std::is_same_v<T, bool>) {
    *value = key != 0;
  } else if constexpr (std::is_unsigned_v<T>) {
    *value = key;
  } else if constexpr (std::is_integral_v<T>) {
    *value = static_cast<T>(static_cast<K>(key ^ kSignBit<T>));
  } else {
    if (key == kSignBit<T> || key == kNanKey<T>) return false;
    *value = std::bit_cast<T>(
        static_cast<K>(key > kSignBit<T> ? key - kSignBit<T> : kSignBit<T> | static_cast<K>(kSignBit<T> - key)));
  }
  return true;
}

// Key and position in one word: enough for keys of 32 bits and lines shorter than 2^32.
struct PackedPair {
  uint64_t bits;
  static PackedPair make(uint64_t key, int64_t index) { return {key << 32 | static_cast<uint64_t>(index)}; }
  uint64_t key() const { return bits >> 32; }
  int64_t index() const { return static_cast<int64_t>(bits & 0xffffffffu); }
  bool operator<(const PackedPair& o) const { return bits < o.bits; }
};

struct WidePair {
  uint64_t k;
  int64_t i;
  static WidePair make(uint64_t key, int64_t index) { return {key, index}; }
  uint64_t key() const { return k; }
  int64_t index() const { return i; }
  bool operator<(const WidePair& o) const { return k != o.k ? k < o.k : i < o.i; }
};

// Calls f.template operator()<Pair>() with the smallest pair type for lines of n elements with keys K.
template <class K, class F>
decltype(auto) with_pair(int64_t n, F&& f) {
  if constexpr (sizeof(K) <= 4)
    if (n < (int64_t{1} << 32)) return f.template operator()<PackedPair>();
  return f.template operator()<WidePair>();
}

inline constexpr int kDigitBits = 8;
inline constexpr int64_t kBuckets = 1 << kDigitBits;
inline constexpr int64_t kRadixFrom = 512;  // below, comparisons are faster than histograms

// One stable counting pass on the digit at `shift`, by `blocks` threads; false when all pairs share that digit.
template <class P>
bool radix_pass(const P* from, P* to, int64_t n, int shift, int64_t blocks, int64_t* counts) {
  auto digit = [shift](const P& p) { return p.key() >> shift & (kBuckets - 1); };
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      int64_t* count = counts + b * kBuckets;
      std::fill_n(count, kBuckets, 0);
      for (int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) ++count[digit(from[i])];
    }
  });
  int64_t at = 0;
  for (int64_t bucket = 0; bucket < kBuckets; ++bucket) {
    const int64_t before = at;
    for (int64_t b = 0; b < blocks; ++b) at += std::exchange(counts[b * kBuckets + bucket], at);
    if (at - before == n) return false;
  }
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      int64_t next[kBuckets];  // a stack copy: the compiler knows that writes to `to` leave it alone
      std::copy_n(counts + b * kBuckets, kBuckets, next);
      for (int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) to[next[digit(from[i])]++] = from[i];
    }
  });
  return true;
}

// Sorts pairs whose positions rise with their place (the radix passes rely on it). key_bits: significant low bits of a
// key.
template <class P>
void sort_pairs(P* pairs, int64_t n, int key_bits) {
  if (n < kRadixFrom) return std::sort(pairs, pairs + n);
  const int64_t parallel_from = limited_grain(1 << 16);
  const int64_t blocks = n >= parallel_from && !in_parallel_region() ? num_threads() : 1;
  Buffer other(n * sizeof(P)), counts(blocks * kBuckets * sizeof(int64_t));
  P *from = pairs, *to = other.as<P>();
  for (int shift = 0; shift < key_bits; shift += kDigitBits)
    if (radix_pass(from, to, n, shift, blocks, counts.as<int64_t>())) std::swap(from, to);
  if (from != pairs) std::copy_n(from, n, pairs);
}

}  // namespace deepseek::kernels
