// Composites: table entries with a schema and a body in public ops, no kernel.
//   DS_BODY(Struct, schema, doc, inplace, shown, fields) { return ...; }     one result
//   DS_BODY_LIST(...)                                                        several, as a TensorList
//   DS_BODY_CAST(rule, Struct, ...)     one result of inputs that autocast casts by this rule, where the body itself
//                                       looks at dtypes; otherwise only the ops that it calls are cast
#pragma once

#include "ops/ops.h"

#define DS_BODY_AS(Result, rule_, S, schema_, doc_, inplace_, shown_, ...) \
  struct S {                                                               \
    __VA_ARGS__                                                            \
    static constexpr OpInfo info{.schema = schema_,                        \
                                 .doc = doc_,                              \
                                 .kind = Kind::kComposite,                 \
                                 .autocast = Autocast::rule_,              \
                                 .inplace = inplace_,                      \
                                 .shown = Shown::shown_};                  \
    bool operator==(const S&) const = default;                             \
    Result body(Inputs in) const;                                          \
  };                                                                       \
  DS_OP(S);                                                                \
  Result S::body([[maybe_unused]] Inputs in) const

#define DS_BODY(...) DS_BODY_AS(Tensor, kNone, __VA_ARGS__)
#define DS_BODY_CAST(rule, ...) DS_BODY_AS(Tensor, rule, __VA_ARGS__)
#define DS_BODY_LIST(...) DS_BODY_AS(TensorList, kNone, __VA_ARGS__)
