// The schema string of an op, e.g. "sum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) ->
// Tensor". "name.overload" lets several ops share one public name; "int[]*" accepts loose integers, as in x.view(2, 3).
// "Tensor(a!) x" and "Tensor(a!)[] xs" are written to, as PyTorch spells it; "-> ()" returns nothing.
// "Tensor|Number" accepts a Python number in place of a tensor; "Tensor|LeftNumber" too, on the left of an operator:
// then the other arguments have to be tensors (2 ** x, but not pow(2, 3)).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepseek {

enum class ArgType : uint8_t {
  kTensor,      // an input
  kTensorList,  // several inputs; all lists of an op are as long as each other
  kGenerator,   // becomes the last input of a random op
  kDevice,      // checked by the binding, not stored
  kInt,
  kFloat,
  kBool,
  kScalar,
  kDims,
  kStr,
  kDType,  // fields of the op struct
  kOptInt,
  kOptFloat,
  kOptBool,
  kOptScalar,
  kOptDims,
  kOptStr,
  kOptDType,
};

enum class Numbers : uint8_t { kNo, kYes, kOnTheLeft };  // whether a tensor may be a Python number

struct SchemaArg {
  std::string name;
  std::string type;  // as it stands there, but for the (a!) of a written one
  ArgType kind;
  Numbers numbers = Numbers::kNo;  // of a list: of its entries
  bool optional_tensor = false;    // or, of a list, its entries; such a list may be left empty beside longer ones
  bool written = false;            // its memory is what the op changes
  bool varargs = false;
  bool keyword_only = false;
  bool has_default = false;
  std::string default_text;
  int slot = -1;  // index of the input, or of the field
};

struct Schema {
  std::string name;  // with the overload
  std::string base;  // public name
  std::vector<SchemaArg> args;
  std::vector<std::string> returns;  // names of the outputs; {""} for one unnamed, none for "-> ()"
  bool returns_list = false;
  bool writes = false;  // some argument is written to
  int num_inputs = 0;   // tensor slots (a list counts as one)
  int num_lists = 0;    // of them
  int num_fields = 0;

  // How long each list is in a call with so many tensors: inputs are one flat list, in the order of the arguments.
  size_t list_length(size_t inputs) const {
    return num_lists > 0 ? (inputs - static_cast<size_t>(num_inputs - num_lists)) / num_lists : 0;
  }
  // f(place) for each input of such a call that is written to.
  template <class F>
  void for_each_written(size_t inputs, F f) const {
    if (!writes) return;
    size_t place = 0;
    for (const SchemaArg& a : args) {
      if (a.kind > ArgType::kGenerator) continue;
      const size_t end = place + (a.kind == ArgType::kTensorList ? list_length(inputs) : 1);
      if (a.written)
        for (size_t i = place; i < end; ++i) f(i);
      place = end;
    }
  }

  // Throws Error naming the place when the text is not a schema.
  static Schema parse(std::string_view text);
};

}  // namespace deepseek
