// A call of an op through the table, for the functions that are written from its schema (functions.cc).
#pragma once

#include "core/dispatch/inplace.h"

namespace deepseek {

class OpCall {
 public:
  explicit OpCall(const OpDef& def) : def_(def) { def.init(attributes_); }

  // Inputs and attributes in the schema's order; an attribute has its field's type.
  OpCall& in(const Tensor& t) {
    inputs_.push_back(t);
    return *this;
  }
  OpCall& in(Inputs more) {
    for (const Tensor& t : more) inputs_.push_back(t);
    return *this;
  }
  template <class T>
  OpCall& set(const T& value) {
    *reinterpret_cast<T*>(attributes_ + def_.fields[set_++].offset) = value;
    return *this;
  }

  TensorList list() {
    TensorList out;
    dispatch_op(def_, attributes_, {inputs_.data(), inputs_.size()}, out);
    return out;
  }
  Tensor one() { return std::move(list()[0]); }
  template <size_t N>
  std::array<Tensor, N> several() {
    TensorList out = list();
    std::array<Tensor, N> result;
    for (size_t i = 0; i < N; ++i) result[i] = std::move(out[i]);
    return result;
  }
  Tensor in_place() {
    dispatch_inplace(def_, attributes_, {inputs_.data(), inputs_.size()});
    return inputs_[0];
  }

 private:
  const OpDef& def_;
  alignas(16) char attributes_[kMaxOpBytes];
  TensorList inputs_;
  size_t set_ = 0;
};

}  // namespace deepseek
