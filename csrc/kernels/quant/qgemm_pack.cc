#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "kernels/quant/qgemm.h"
#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

bool fits_half(float x) { return std::bit_cast<uint32_t>(static_cast<float>(Half(x))) == std::bit_cast<uint32_t>(x); }

// Where step s of a panel begins: blocks hold their scales first.
int64_t step_offset(const PackedQuant& p, int64_t s) {
  return (s / p.block_steps() + 1) * p.side_bytes() + s * p.step_bytes();
}

void put_scale(const PackedQuant& p, uint8_t* block, int64_t column, float scale) {
  if (p.half_scales) {
    const Half h(scale);
    std::memcpy(block + 2 * column, &h, 2);
  } else {
    std::memcpy(block + 4 * column, &scale, 4);
  }
}
float get_scale(const PackedQuant& p, const uint8_t* block, int64_t column) {
  if (!p.half_scales) {
    float scale;
    std::memcpy(&scale, block + 4 * column, 4);
    return scale;
  }
  Half h;
  std::memcpy(&h, block + 2 * column, 2);
  return h;
}
int64_t zeros_offset(const PackedQuant& p) { return (p.half_scales ? 2 : 4) * PackedQuant::kColumns; }

void pack_column(const QuantMatrix& q, const PackedQuant& p, int64_t i, int64_t column, uint8_t* panel) {
  for (int64_t b = 0; b < p.blocks(); ++b) {
    const int64_t at = i * q.blocks() + (q.block > 0 ? b : 0);
    uint8_t* side = panel + b * p.block_bytes();
    put_scale(p, side, column, q.scales[at]);
    if (q.format->has_zeros) side[zeros_offset(p) + column] = q.zeros[at];
  }
  const uint8_t* row = q.codes + i * q.row_bytes();
  const auto pack = q.format->packed->pack;
  const int64_t step = PackedQuant::kStep / q.format->per_byte, whole = q.row_bytes() / step;
  uint8_t* words = panel + 4 * column;
  for (int64_t s = 0; s < whole; ++s) pack(row + s * step, words + step_offset(p, s));
  if (whole == p.steps()) return;
  uint8_t rest[PackedQuant::kStep] = {};  // padded with zeros
  std::memcpy(rest, row + whole * step, static_cast<size_t>(q.row_bytes() - whole * step));
  pack(rest, words + step_offset(p, whole));
}

void unpack_column(const PackedQuant& p, const QuantMatrix& q, int64_t i, int64_t column, const uint8_t* panel) {
  for (int64_t b = 0; b < p.blocks(); ++b) {
    if (q.block == 0 && b > 0) break;
    const uint8_t* side = panel + b * p.block_bytes();
    q.scales[i * q.blocks() + b] = get_scale(p, side, column);
    if (q.format->has_zeros) q.zeros[i * q.blocks() + b] = side[zeros_offset(p) + column];
  }
  uint8_t* row = q.codes + i * q.row_bytes();
  const int64_t step = PackedQuant::kStep / q.format->per_byte;
  for (int64_t s = 0; s < p.steps(); ++s) {
    uint8_t codes[PackedQuant::kStep];
    q.format->packed->unpack(panel + step_offset(p, s) + 4 * column, codes);
    std::memcpy(row + s * step, codes, static_cast<size_t>(std::min(step, q.row_bytes() - s * step)));
  }
}

}  // namespace

PackedQuant packed_form(const QuantMatrix& q, int64_t count) {
  DS_CHECK(q.format->packed, "qgemm: ", q.format->name, " weights have no packed form");
  const bool half = std::all_of(q.scales, q.scales + count * q.n * q.blocks(), fits_half);
  return {q.format, half, q.n, q.k, q.block > 0 ? q.block : kWholeRowBlock};
}

size_t packed_bytes(const PackedQuant& form, int64_t count) {
  return static_cast<size_t>(PackedQuant::kHeaderBytes + count * form.panels() * form.panel_bytes());
}

void qgemm_pack(const QuantMatrix& q, const PackedQuant& form, void* to, int64_t count) {
  count_route(Route::kQgemmPack);
  std::memcpy(to, &form, sizeof(form));
  auto* panels = static_cast<uint8_t*>(to) + PackedQuant::kHeaderBytes;
  parallel_for(count * form.panels(), grain_for(PackedQuant::kColumns * q.k * 4), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t p = at % form.panels();
      const QuantMatrix one = q.of_stack(at / form.panels());
      uint8_t* panel = panels + at * form.panel_bytes();
      std::memset(panel, 0, static_cast<size_t>(form.panel_bytes()));
      for (int64_t i = p * PackedQuant::kColumns; i < std::min(q.n, (p + 1) * PackedQuant::kColumns); ++i)
        pack_column(one, form, i, i - p * PackedQuant::kColumns, panel);
    }
  });
}

void qgemm_unpack(const PackedQuant& p, const QuantMatrix& q) {
  for (int64_t i = 0; i < q.n; ++i)
    unpack_column(p, q, i, i % PackedQuant::kColumns, p.panel(i / PackedQuant::kColumns));
}

}  // namespace deepseek::kernels
