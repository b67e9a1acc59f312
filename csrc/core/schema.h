// The schema string of an op, e.g. "sum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) ->
// Tensor". "name.overload" lets several ops share one public name; "int[]*" accepts loose integers, as in x.view(2, 3).
// "Tensor|Number" accepts a Python number in place of a tensor; "Tensor|LeftNumber" too, on the left of an operator:
// then the other arguments have to be tensors (2 ** x, but not pow(2, 3)).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepseek {

enum class ArgType : uint8_t {
  kTensor,      // an input
  kTensorList,  // the remaining inputs
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
  std::string type;  // as written
  ArgType kind;
  Numbers numbers = Numbers::kNo;
  bool optional_tensor = false;
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
  std::vector<std::string> returns;  // names of the outputs; {""} for one unnamed
  bool returns_list = false;
  int num_inputs = 0;  // tensor slots (a list counts as one)
  int num_fields = 0;

  // Throws Error naming the place when the text is not a schema.
  static Schema parse(std::string_view text);
};

}  // namespace deepseek
