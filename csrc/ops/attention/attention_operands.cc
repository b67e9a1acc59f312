// What forms of attention refuse.
#include "ops/attention/attention.h"

namespace deepseek {

void check_attention_shapes(const char* op, const Tensor& q, const Tensor& k, const Tensor& v) {
  DS_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, op,
           "query, key and value must have 4 dims [batch, heads, length, size], got ", q.sizes(), ", ", k.sizes(),
           " and ", v.sizes());
  DS_CHECK(k.size(0) == q.size(0) && v.size(0) == q.size(0) && v.size(1) == k.size(1) && v.size(2) == k.size(2) &&
               k.size(3) == q.size(3),
           op, "shapes do not match: query ", q.sizes(), " wants a key [", q.size(0), ", K, S, ", q.size(3),
           "] and a value [", q.size(0), ", K, S, V]; got ", k.sizes(), " and ", v.sizes());
  DS_CHECK(k.size(1) > 0 && q.size(1) % k.size(1) == 0, op, k.size(1), " key heads must divide ", q.size(1),
           " query heads");
}

void check_attention_dtypes(const char* op, const Tensor& q, const Tensor& k, const Tensor& v) {
  DS_CHECK_AS(NotImplementedError, is_floating(q.dtype()) && !is_float8(q.dtype()), op, "not implemented for ",
              name_of(q.dtype()), "; convert to float32 first");
  DS_CHECK(q.dtype() == k.dtype() && q.dtype() == v.dtype(), op, "query, key and value must have one dtype, got ",
           name_of(q.dtype()), ", ", name_of(k.dtype()), " and ", name_of(v.dtype()));
}

void check_attention_positions(const char* op, int64_t queries, int64_t keys, int64_t window, int64_t query_start) {
  DS_CHECK(window >= 0 && query_start >= 0, op, "window and query_start must not be negative, got ", window, " and ",
           query_start);
  const auto fits = [](int64_t n) { return n < kMostPosition; };
  DS_CHECK(fits(query_start) && fits(queries) && fits(keys) && fits(queries + keys + query_start), op,
           "positions must stay below 2^30, got ", queries, " queries from position ", query_start, " on and ", keys,
           " keys");
}

bool broadcasts_to(const Dims& from, const Dims& to) {
  if (from.size() > to.size()) return false;
  for (int i = 1; i <= from.size(); ++i)
    if (from[from.size() - i] != 1 && from[from.size() - i] != to[to.size() - i]) return false;
  return true;
}

bool fits_attention(DType mask, DType query) {
  return mask == DType::kBool || mask == DType::kFloat32 || mask == query;
}

void check_attention_mask_dtype(DType mask, DType query) {
  DS_CHECK(fits_attention(mask, query),
           "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: ",
           name_of(mask), " and query.dtype: ", name_of(query));
}

void check_attention_mask(const char* op, const Tensor& mask, DType dtype, const Dims& scores) {
  if (!mask.defined()) return;
  check_attention_mask_dtype(mask.dtype(), dtype);
  DS_CHECK(broadcasts_to(mask.sizes(), scores), op, "a mask of shape ", mask.sizes(),
           " does not broadcast to the scores, ", scores);
}

void check_attention_sinks(const char* op, const Tensor& sinks, int64_t heads) {
  DS_CHECK(!sinks.defined() || (sinks.dim() == 1 && sinks.size(0) == heads && is_floating(sinks.dtype())), op,
           "sinks must be ", heads, " floating numbers, one for each query head; got ",
           sinks.defined() ? sinks.sizes() : Dims());
}

}  // namespace deepseek
