// Diagonals and triangles of matrices.
#include <algorithm>
#include <limits>

#include "ops/composite.h"

namespace deepseek {
namespace {

// The last dim of x on a diagonal of matrices of zeros, which are the last two dims.
Tensor on_diagonal(const char* op, const Tensor& x, int64_t offset) {
  int64_t n = 0;
  const bool fits =
      offset >= 0 ? !__builtin_add_overflow(x.size(-1), offset, &n) : !__builtin_sub_overflow(x.size(-1), offset, &n);
  DS_CHECK(fits, op, "(): a matrix with a diagonal at offset ", offset, " is too large");
  Dims sizes = x.sizes();
  sizes.back() = n;
  sizes.push_back(n);
  const Tensor out = zeros(sizes, x.dtype());
  copy_(diagonal(out, offset, -2, -1), x);
  return out;
}

}  // namespace

DS_BODY(DiagEmbed, "diag_embed(Tensor input, int offset=0, int dim1=-2, int dim2=-1) -> Tensor",
        "Matrices whose diagonal is the last dim of input, in dims `dim1` and `dim2` of the result.", false, kBoth,
        int64_t offset;
        int64_t dim1; int64_t dim2;) {
  const int ndim = in[0].dim() + 1;
  DS_CHECK(wrap_dim("diag_embed", dim1, ndim) != wrap_dim("diag_embed", dim2, ndim),
           "diagonal dimensions cannot be identical ", dim1, ", ", dim2);
  return movedim(on_diagonal("diag_embed", in[0], offset), {-2, -1}, {dim1, dim2});
}

DS_BODY(Diag, "diag(Tensor input, int diagonal=0) -> Tensor",
        "The diagonal of a matrix (a copy), or a matrix with a vector on its diagonal.", false, kBoth,
        int64_t diagonal;) {
  DS_CHECK(in[0].dim() == 1 || in[0].dim() == 2, "diag(): Supports 1D or 2D tensors. Got ", in[0].dim(), "D");
  return in[0].dim() == 2 ? clone(deepseek::diagonal(in[0], diagonal, 0, 1)) : on_diagonal("diag", in[0], diagonal);
}

DS_BODY_CAST(kFloat32, Trace, "trace(Tensor input) -> Tensor", "Sum of the diagonal of a matrix.", false, kBoth, ) {
  DS_CHECK(in[0].dim() == 2, "trace: expected a matrix, but got tensor with dim ", in[0].dim());
  return sum(diagonal(in[0], 0, 0, 1));
}

namespace {

// The lower triangle of a [row, col] matrix, places (i, j) with j - i <= offset, or what is not in it. Counted in
// 128 bits: sizes and offsets may be any int64.
struct Triangle {
  int64_t row, col;
  __int128 offset;
  bool lower;

  Triangle(int64_t row, int64_t col, int64_t offset, bool lower)
      : row(row), col(col), offset(lower ? __int128{offset} : __int128{offset} - 1), lower(lower) {}

  // Of the lower triangle, rows before this one are empty, and rows from that one on are full.
  int64_t first() const { return static_cast<int64_t>(std::clamp<__int128>(-offset, 0, row)); }
  int64_t full() const { return static_cast<int64_t>(std::clamp<__int128>(col - 1 - offset, first(), row)); }
  int64_t width(int64_t i) const { return static_cast<int64_t>(std::clamp<__int128>(i + offset + 1, 0, col)); }
  __int128 count() const {
    const __int128 a = first(), b = full(), all = __int128{row} * col;
    const __int128 in_lower = (b - a) * (a + offset + 1 + b + offset) / 2 + (row - b) * __int128{col};
    return lower ? in_lower : all - in_lower;
  }

  Meta meta(const Opt<DType>& dtype) const {
    DS_CHECK(row >= 0, "row must be non-negative, got ", row);
    DS_CHECK(col >= 0, "col must be non-negative, got ", col);
    DS_CHECK(count() <= std::numeric_limits<int64_t>::max(), "a triangle of a matrix of size ", Dims{row, col},
             " has more elements than an int64 can count");
    return {dtype.value_or(DType::kInt64), {2, static_cast<int64_t>(count())}};
  }
  void fill(Tensor& out) const {
    dispatch(out.dtype(), [&]<class T>() {
      const auto number = [](int64_t i) {
        if constexpr (std::is_integral_v<T>)
          return static_cast<T>(i);
        else
          return T(static_cast<double>(i));
      };
      T *rows = out.data<T>(), *cols = rows + out.sizes()[1];
      const int64_t end = out.numel() == 0 ? 0 : lower ? row : full();
      for (int64_t i = lower ? first() : 0; i < end; ++i) {
        for (int64_t j = lower ? 0 : width(i); j < (lower ? width(i) : col); ++j) {
          *rows++ = number(i);
          *cols++ = number(j);
        }
      }
    });
  }
};

}  // namespace

#define DS_TRIANGLE_INDICES(S, name, which, lower_)                                                              \
  struct S {                                                                                                     \
    int64_t row, col, offset;                                                                                    \
    Opt<DType> dtype;                                                                                            \
    static constexpr OpInfo info{                                                                                \
        .schema = #name "(int row, int col, int offset=0, *, dtype? dtype=None, device? device=None) -> Tensor", \
        .doc = "Row and column indices of the " which " triangle of a [row, col] matrix: shape [2, n], int64.",  \
        .differentiable = false,                                                                                 \
        .shown = Shown::kFunction};                                                                              \
    bool operator==(const S&) const = default;                                                                   \
    Meta infer(Inputs) const { return Triangle(row, col, offset, lower_).meta(dtype); }                          \
    void eval(Inputs, Tensor& out) const { Triangle(row, col, offset, lower_).fill(out); }                       \
  };                                                                                                             \
  DS_OP(S);
DS_TRIANGLE_INDICES(TrilIndices, tril_indices, "lower", true)
DS_TRIANGLE_INDICES(TriuIndices, triu_indices, "upper", false)
#undef DS_TRIANGLE_INDICES

}  // namespace deepseek
