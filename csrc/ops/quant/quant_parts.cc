#include "ops/quant/quant_parts.h"

#include "base/text.h"
#include "ops/operands.h"

namespace deepseek {

using kernels::QuantFormat;
using kernels::QuantMatrix;

namespace {

std::string formats() {
  std::vector<std::string> names;
  for (const QuantFormat& t : kernels::quant_formats()) names.push_back("'" + std::string(t.name) + "'");
  return either(names);
}

std::string blocks_of(const QuantFormat& t) {
  std::vector<std::string> sizes;
  for (const int64_t block : t.blocks)
    if (block >= 0) sizes.push_back(block == 0 ? "0 (a whole row)" : std::to_string(block));
  return either(sizes);
}

}  // namespace

const QuantFormat& format_of(const char* op, const Str& format, int64_t block) {
  const QuantFormat* t = kernels::find_format(format.view());
  DS_CHECK_AS(ValueError, t, op, "(): format must be ", formats(), ", got '", format.view(), "'");
  DS_CHECK_AS(ValueError, t->takes(block), op, "(): format '", t->name, "' takes blocks of ", blocks_of(*t), ", got ",
              block);
  return *t;
}

void check_parts(const char* op, const QuantFormat& t, int64_t block, int64_t k, Inputs parts) {
  const Tensor &codes = parts[0], &scales = parts[1], &zeros = parts[2];
  DS_CHECK(codes.dtype() == t.code, op, "(): codes of format '", t.name, "' are ", t.code, ", got ", codes.dtype());
  DS_CHECK(codes.dim() == 2 || codes.dim() == 3, op, "(): codes must be 2-D, or 3-D for a stack, got shape ",
           codes.sizes());
  const QuantMatrix m{&t, codes.size(-2), k, block};
  DS_CHECK(codes.size(-1) == m.row_bytes(), op, "(): codes of shape ", codes.sizes(), " do not hold rows of ", k,
           " values: format '", t.name, "' takes ", m.row_bytes(), " bytes a row");
  Dims sides = codes.sizes();
  sides[codes.dim() - 2] = m.scale_rows();
  sides.back() = m.blocks();
  DS_CHECK(scales.dtype() == DType::kFloat32 && scales.sizes() == sides, op, "(): scales must be float32 of shape ",
           sides, " for ", m.n, " x ", k, " weights in blocks of ", block, ", got ", scales.dtype(), " of shape ",
           scales.sizes());
  if (t.has_zeros) {
    DS_CHECK(zeros.defined() && zeros.dtype() == DType::kUInt8 && zeros.sizes() == sides, op, "(): format '", t.name,
             "' needs zeros, uint8 of shape ", sides);
  } else {
    DS_CHECK(!zeros.defined() || zeros.numel() == 0, op, "(): format '", t.name, "' has no zero points, got zeros of ",
             "shape ", zeros.defined() ? zeros.sizes() : Dims());
  }
}

void refuse_gradients(const char* op, Inputs parts) {
  DS_CHECK(!mode().records() || !(parts[0].requires_grad() || parts[1].requires_grad()), op,
           "(): codes and scales are not differentiable, but one of them requires grad; train the weights before they "
           "are quantized, or detach() the scales");
}

QuantParts::QuantParts(const QuantFormat& t, int64_t block, int64_t k, const Tensor& c, const Tensor& s,
                       const Tensor& z)
    : codes(dense(c, t.code)),
      scales(dense(s, DType::kFloat32)),
      count(c.dim() == 3 ? c.sizes()[0] : 1),
      m{&t, c.size(-2), k, block} {
  if (t.has_zeros) zeros = dense(z, DType::kUInt8);
  m.codes = static_cast<uint8_t*>(codes.data_ptr());
  m.scales = scales.data<float>();
  m.zeros = zeros.defined() ? zeros.data<uint8_t>() : nullptr;
}

Ref<Packed> packed_weights(const QuantFormat& t, int64_t block, int64_t k, Inputs parts) {
  // k too: rows of two values a byte have one shape for an odd k and the next.
  const uint64_t variant =
      static_cast<uint64_t>(t.index()) | static_cast<uint64_t>(block) << 8 | static_cast<uint64_t>(k) << 16;
  return packed(parts, {"qgemm", variant}, [&] {
    const QuantParts q(t, block, k, parts[0], parts[1], parts[2]);
    const kernels::PackedQuant form = kernels::packed_form(q.m, q.count);
    Ref<Packed> made = make_ref<Packed>(kernels::packed_bytes(form, q.count));
    kernels::qgemm_pack(q.m, form, made->as<void>(), q.count);
    return made;
  });
}

}  // namespace deepseek
