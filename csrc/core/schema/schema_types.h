// The argument types of schemas: what each is parsed into, and how people read it.
#pragma once

#include <array>
#include <string_view>

#include "core/schema/schema.h"

namespace deepseek {

struct SchemaType {
  std::string_view text;  // in a schema
  ArgType kind;
  const char* annotation;  // as Python writes it
  const char* words;       // as a sentence has it
  Numbers numbers = Numbers::kNo;
};

constexpr std::array<SchemaType, 23> kSchemaTypes{{
    {"Tensor", ArgType::kTensor, "Tensor", "Tensor"},
    {"Tensor?", ArgType::kTensor, "Tensor | None", "Tensor or None"},
    {"Tensor|Number", ArgType::kTensor, "Tensor | float", "Tensor or number", Numbers::kYes},
    {"Tensor|Number?", ArgType::kTensor, "Tensor | float | None", "Tensor, number or None", Numbers::kYes},
    {"Tensor|LeftNumber", ArgType::kTensor, "Tensor | float", "Tensor or number", Numbers::kOnTheLeft},
    {"Tensor[]", ArgType::kTensorList, "Sequence[Tensor]", "tuple of Tensors"},
    {"Tensor?[]", ArgType::kTensorList, "Sequence[Tensor | None]", "tuple of Tensors and None"},
    {"Tensor|Number[]", ArgType::kTensorList, "Sequence[Tensor | float]", "tuple of Tensors and numbers",
     Numbers::kYes},
    {"Generator?", ArgType::kGenerator, "Generator | None", "Generator or None"},
    {"device?", ArgType::kDevice, "device | str | None", "device, str or None"},
    {"int", ArgType::kInt, "int", "int"},
    {"float", ArgType::kFloat, "float", "float"},
    {"bool", ArgType::kBool, "bool", "bool"},
    {"Scalar", ArgType::kScalar, "float", "number"},
    {"int[]", ArgType::kDims, "int | Sequence[int]", "int or tuple of ints"},
    {"str", ArgType::kStr, "str", "str"},
    {"int?", ArgType::kOptInt, "int | None", "int or None"},
    {"float?", ArgType::kOptFloat, "float | None", "float or None"},
    {"bool?", ArgType::kOptBool, "bool | None", "bool or None"},
    {"Scalar?", ArgType::kOptScalar, "float | None", "number or None"},
    {"int[]?", ArgType::kOptDims, "int | Sequence[int] | None", "int, tuple of ints or None"},
    {"str?", ArgType::kOptStr, "str | None", "str or None"},
    {"dtype?", ArgType::kOptDType, "dtype | None", "dtype or None"},
}};

// The row of a schema's text; null for an unknown one.
constexpr const SchemaType* find_schema_type(std::string_view text) {
  for (const SchemaType& type : kSchemaTypes)
    if (type.text == text) return &type;
  return nullptr;
}

// A generator, a device and a dtype need no default in the schema.
inline bool may_be_left_out(const SchemaArg& a) {
  return a.has_default || a.kind == ArgType::kGenerator || a.kind == ArgType::kDevice || a.kind == ArgType::kOptDType;
}

// "sum(input: Tensor, dim: int | Sequence[int] | None = None, ...) -> Tensor": what users are shown of op `name`.
std::string signature_text(const Schema& schema, const std::string& name);

}  // namespace deepseek
