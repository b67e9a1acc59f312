// The ops that the choke point calls itself: copies, in place and under autocast.
#pragma once

#include "core/op.h"

namespace deepseek {

struct Clone {
  static constexpr OpInfo info{.schema = "clone(Tensor input) -> Tensor",
                               .doc = "A copy with its own memory.",
                               .saves = Saves::kNone,
                               .elementwise = true};
  bool operator==(const Clone&) const = default;
  Meta infer(Inputs in) const {
    return {in[0].dtype(), in[0].sizes(), preserved_strides(in[0].sizes(), in[0].strides())};
  }
  void eval(Inputs in, Tensor& out) const;
  Grads vjp(const Vjp& c) const { return {c.grad[0]}; }
};

struct ToDtype {
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "_to_dtype(Tensor input, dtype? dtype) -> Tensor",
                               .doc = "Converted to `dtype`, always a copy; float to int truncates.",
                               .saves = Saves::kNone,
                               .elementwise = true,
                               .shown = Shown::kHidden,
                               .node = "ToCopy"};
  bool operator==(const ToDtype&) const = default;
  Meta infer(Inputs in) const {
    return {dtype.value_or(in[0].dtype()), in[0].sizes(), preserved_strides(in[0].sizes(), in[0].strides())};
  }
  void eval(Inputs in, Tensor& out) const;
  Grads vjp(const Vjp& c) const { return {c.grad[0]}; }  // the engine casts to the input's dtype
};

// Of its own, because of its gradient: what several uses send back is summed in the input's dtype.
struct AutocastLower {
  Opt<DType> dtype;
  static constexpr OpInfo info{.schema = "_autocast_lower(Tensor input, dtype? dtype) -> Tensor",
                               .doc = "_to_dtype under autocast, whose gradients are not rounded to dtype.",
                               .saves = Saves::kNone,
                               .elementwise = true,
                               .wide_gradient = true,
                               .shown = Shown::kHidden,
                               .node = "ToCopy"};
  bool operator==(const AutocastLower&) const = default;
  Meta infer(Inputs in) const { return ToDtype{dtype}.infer(in); }
  void eval(Inputs in, Tensor& out) const;
  Grads vjp(const Vjp& c) const { return {c.grad[0]}; }
};

}  // namespace deepseek
