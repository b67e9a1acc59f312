// The products of attention's tiles with bf16 dot products (AVX512_BF16), operands in pairs along the dim that is
// summed. Everything here runs where uses_bf16_dot(bf16); panels are 64 rows wide.
#pragma once

#include <cstdint>

namespace deepseek::kernels::bf16_attention {

// out[keys][64] = A[keys, pairs] B[pairs][64]; `vecs` vectors of 16 columns.
void scores(int64_t keys, int64_t vecs, int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b, float* out);
// out[rows, columns] = out * keep (0 when `fresh`) + A^T B: A [pairs][64], B [pairs][b_row].
void values(int64_t rows, int64_t columns, int64_t pairs, const uint32_t* a, const uint32_t* b, int64_t b_row,
            const float* keep, float* out, int64_t out_row, bool fresh);
// out[m, columns] += A B: A [m, pairs] with rows of a_row, B [pairs][b_row].
void add_product(int64_t m, int64_t columns, int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b,
                 int64_t b_row, float* out, int64_t out_row);
// The same to rows out[0..m-1] that lie apart.
void add_to_rows(int64_t m, int64_t columns, int64_t pairs, const uint32_t* a, int64_t a_row, const uint32_t* b,
                 int64_t b_row, float* const* out);

// [n][64] floats -> [ceil(n / 2)][64] pairs of neighbours in n, rounded; `vecs` vectors of each row.
void pair_rows(const float* from, int64_t n, int64_t vecs, uint32_t* to);
// [n][64] floats -> n rows of 32 pairs, neighbours within the row.
void pair_columns(const float* from, int64_t n, int64_t vecs, uint32_t* to);
// rows [n, columns] of bf16 -> [columns / 2][64]: the transposed panel, rows beyond n zero up to the next 16.
void pack_panel(const uint16_t* from, int64_t row, int64_t n, int64_t columns, uint32_t* to);
// rows [n, columns] -> [ceil(n / 2)][width], columns zero up to width.
void pack_pairs(const uint16_t* from, int64_t row, int64_t n, int64_t columns, uint32_t* to, int64_t width);

}  // namespace deepseek::kernels::bf16_attention
