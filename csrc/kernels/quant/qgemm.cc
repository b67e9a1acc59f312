#include "kernels/quant/qgemm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/gemm/matmul.h"
#include "kernels/quant/qgemm_rows.h"
#include "kernels/quant/qgemm_store.h"
#include "kernels/quant/quantize.h"
#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kDequantizedColumns = 64;

// Rows [i0, i0 + m) of the input.
void put_rows(const QGemm& g, const PackedQuant& w, int64_t i0, int64_t m, QTileRows& x) {
  x.cut(m);
  parallel_for(x.tiles(), grain_for(w.k * kQTileRows * 4), [&](int64_t begin, int64_t end) {
    const Buffer scratch(static_cast<size_t>(w.k) * sizeof(float)), row(static_cast<size_t>(x.padded()));
    for (int64_t i = x.first_row(begin); i < x.first_row(end); ++i) {
      const float scale =
          quantize_row({g.dtype, g.x, g.x_row}, i0 + i, w.k, row.as<int8_t>(), x.padded(), scratch.as<float>());
      x.put(i, row.as<int8_t>(), scale);
    }
  });
}

float as_float(const void* p, DType t, int64_t i) {
  return t == DType::kFloat32 ? static_cast<const float*>(p)[i] : static_cast<const BFloat16*>(p)[i];
}

// What is stored for row i from column j on.
QStoreRow row_of(const QGemm& g, int64_t i, int64_t j) {
  const int64_t size = size_of(g.dtype);
  return {nullptr, nullptr, 0,
          g.residual ? static_cast<const char*>(g.residual) + (i * g.residual_row + j) * size : nullptr,
          static_cast<char*>(g.out) + (i * g.out_row + j) * size};
}

// Panels [begin, end) for the rows of x, which are those from i0 on.
void some_panels(const QGemm& g, const PackedQuant& w, const QTileRows& x, int64_t i0, int64_t begin, int64_t end) {
  const int64_t m = x.rows(), width = kQBlockPanels * PackedQuant::kColumns;
  const Buffer buffer(static_cast<size_t>((m + 1) * width) * sizeof(float));
  float *sums = buffer.as<float>(), *bias = sums + m * width;
  const QStoreFn store = qstore(g.dtype, g.activation);
  for (int64_t p0 = begin; p0 < end; p0 += kQBlockPanels) {
    const int64_t p1 = std::min(end, p0 + kQBlockPanels);
    qgemm_panels(w, x, p0, p1, sums, width);
    const int64_t j = p0 * PackedQuant::kColumns, n = std::min(w.n, p1 * PackedQuant::kColumns) - j;
    if (g.bias)  // not a choice a number: a vector load that is masked at null is slow
      std::copy_n(g.bias + j, n, bias);
    else
      std::fill_n(bias, n, 0.0f);
    QStoreRow row = row_of(g, i0, j);
    row.sums = sums, row.bias = bias;
    const int64_t size = size_of(g.dtype), out_step = g.out_row * size, residual_step = g.residual_row * size;
    for (int64_t i = 0; i < m; ++i) {
      row.scale = x.scale(i);
      store(row, n);
      row.sums += width;
      row.out = static_cast<char*>(row.out) + out_step;
      if (row.residual) row.residual = static_cast<const char*>(row.residual) + residual_step;
    }
  }
}

}  // namespace

void qgemm(const QGemm& g, const PackedQuant& w) {
  if (g.m == 0 || w.n == 0) return;
  count_route(qtile_vnni(w, 1) ? Route::kQgemmVnni : Route::kQgemmAvx2);
  const int64_t parts = (g.m + kQMostRows - 1) / kQMostRows;
  QTileRows x(w, (g.m + parts - 1) / parts);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t i0 = part * g.m / parts, m = (part + 1) * g.m / parts - i0;
    put_rows(g, w, i0, m, x);
    const int64_t work = w.panel_bytes() * (1 + m / 4);  // a panel's, as bytes of memory that take as long
    parallel_for(w.panels(), grain_for(work),
                 [&](int64_t begin, int64_t end) { some_panels(g, w, x, i0, begin, end); });
  }
}

void qgemm_plain(const QGemm& g, const QuantMatrix& w) {
  const int64_t block = w.block > 0 ? w.block : kWholeRowBlock;
  const Buffer x(static_cast<size_t>(w.k + 1) * sizeof(float)), codes_buffer(static_cast<size_t>(w.k + 1));
  auto* codes = codes_buffer.as<int8_t>();
  std::vector<float> values(static_cast<size_t>(block));
  constexpr float kOne = 1;
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t k = 0; k < w.k; ++k) x.as<float>()[k] = as_float(g.x, g.dtype, i * g.x_row + k);
    const float x_scale = quantize_activations(x.as<float>(), w.k, codes);
    for (int64_t j = 0; j < w.n; ++j) {
      float sum = 0;
      for (int64_t begin = 0; begin < w.k; begin += block) {
        const int64_t count = std::min(block, w.k - begin), b = w.block > 0 ? begin / block : 0;
        const QuantRow row = w.row(j);
        w.format->decode(
            {row.codes + begin / w.format->per_byte, count, count, &kOne, row.zeros ? row.zeros + b : nullptr},
            values.data());
        int32_t dot = 0;
        for (int64_t k = 0; k < count; ++k)
          dot += static_cast<int32_t>(values[static_cast<size_t>(k)]) * codes[begin + k];
        sum = std::fma(row.scales[b], static_cast<float>(dot), sum);
      }
      const float y = std::fma(sum, x_scale, g.bias ? g.bias[j] : 0);
      if (g.dtype == DType::kFloat32)
        static_cast<float*>(g.out)[i * g.out_row + j] = y;
      else
        static_cast<BFloat16*>(g.out)[i * g.out_row + j] = BFloat16(y);
    }
  }
}

void qgemm_dequantized(const QGemm& g, const QuantMatrix& w) {
  if (g.m == 0 || w.n == 0) return;
  count_route(Route::kQgemmFp8);
  const int64_t size = size_of(g.dtype);
  // Columns [j, j + n) of a matrix of m rows.
  const auto columns = [&](const void* p, int64_t row, int64_t j, int64_t n) -> View {
    return {const_cast<char*>(static_cast<const char*>(p)) + j * size, g.dtype, {g.m, n}, {row, 1}};
  };
  parallel_for((w.n + kDequantizedColumns - 1) / kDequantizedColumns, grain_for(kDequantizedColumns * w.k * (4 + g.m)),
               [&](int64_t begin, int64_t end) {
                 const Buffer buffer(static_cast<size_t>(kDequantizedColumns * (w.k + 1)) * 4);
                 for (int64_t t = begin; t < end; ++t) {
                   const int64_t j = t * kDequantizedColumns, n = std::min(kDequantizedColumns, w.n - j);
                   dequantize_rows(w, j, j + n, g.dtype, buffer.as<void>());
                   const View tile{buffer.as<void>(), g.dtype, {w.k, n}, {1, w.k}};
                   BFloat16 narrow[kDequantizedColumns];
                   View bias{const_cast<float*>(g.bias) + j, DType::kFloat32, {n}, {1}};
                   if (g.bias && g.dtype == DType::kBFloat16) {
                     for (int64_t c = 0; c < n; ++c) narrow[c] = BFloat16(g.bias[j + c]);
                     bias = {narrow, DType::kBFloat16, {n}, {1}};
                   }
                   std::vector<Epilogue> steps;
                   if (g.activation) steps.push_back({*g.activation});
                   if (g.residual) steps.push_back({Pointwise::kAdd, columns(g.residual, g.residual_row, j, n)});
                   matmul(columns(g.out, g.out_row, j, n), columns(g.x, g.x_row, 0, w.k), tile,
                          g.bias ? &bias : nullptr, false, steps);
                 }
               });
}

}  // namespace deepseek::kernels
