#include "core/schema/fields.h"

namespace deepseek {
namespace {

template <class T>
void put(void* field, T value) {
  *static_cast<T*>(field) = value;
}

Dims parse_dims(const std::string& text) {
  Dims d;
  std::string number;
  for (char c : text) {
    if ((c >= '0' && c <= '9') || c == '-') number += c;
    if ((c == ',' || c == ']') && !number.empty()) {
      d.push_back(std::stoll(number));
      number.clear();
    }
  }
  return d;
}

Scalar parse_scalar(const std::string& text) {
  if (text == "True" || text == "False") return Scalar(text == "True");
  if (text.find_first_of(".e") == std::string::npos) return Scalar(static_cast<int64_t>(std::stoll(text)));
  return Scalar(std::stod(text));
}

}  // namespace

void set_default(ArgType kind, void* field, const std::string& text) {
  const bool none = text == "None";
  switch (kind) {
    case ArgType::kInt:
      return put<int64_t>(field, std::stoll(text));
    case ArgType::kFloat:
      return put<double>(field, std::stod(text));
    case ArgType::kBool:
      return put<bool>(field, text == "True");
    case ArgType::kScalar:
      return put<Scalar>(field, parse_scalar(text));
    case ArgType::kDims:
      return put<Dims>(field, parse_dims(text));
    case ArgType::kStr:
      return put<Str>(field, Str(std::string_view(text).substr(1, text.size() - 2)));
    case ArgType::kOptInt:
      return put<Opt<int64_t>>(field, none ? Opt<int64_t>() : Opt<int64_t>(std::stoll(text)));
    case ArgType::kOptFloat:
      return put<Opt<double>>(field, none ? Opt<double>() : Opt<double>(std::stod(text)));
    case ArgType::kOptBool:
      return put<Opt<bool>>(field, none ? Opt<bool>() : Opt<bool>(text == "True"));
    case ArgType::kOptScalar:
      return put<Opt<Scalar>>(field, none ? Opt<Scalar>() : Opt<Scalar>(parse_scalar(text)));
    case ArgType::kOptDims:
      return put<Opt<Dims>>(field, none ? Opt<Dims>() : Opt<Dims>(parse_dims(text)));
    case ArgType::kOptStr:
      return put<Opt<Str>>(field, none ? Opt<Str>() : Opt<Str>(Str(std::string_view(text).substr(1, text.size() - 2))));
    case ArgType::kOptDType:
      DS_CHECK(none, "schema: a dtype can only default to None");
      return put<Opt<DType>>(field, Opt<DType>());
    case ArgType::kTensor:
    case ArgType::kTensorList:
    case ArgType::kGenerator:
    case ArgType::kDevice:
    case ArgType::kDType:
      fail("schema: this argument cannot have a default");
  }
}

}  // namespace deepseek
