// Composites: table entries with a schema and a body in public ops, no kernel.
//   DS_BODY(Struct, schema, doc, inplace, shown, fields) { return ...; }     one result
//   DS_BODY_LIST(...)                                                        several, as a TensorList
//   DS_BODY_CAST(rule, Struct, ...)            one result of inputs that autocast casts by this rule: the body sees
//   them
//                                              cast. Without a rule the ops that it calls are cast, each by its own
//   DS_BODY_CAST_OF(rule, slots, Struct, ...)  only these inputs are cast
#pragma once

#include "ops/ops.h"

#define DS_BODY_AS(Result, rule_, slots_, S, schema_, doc_, inplace_, shown_, ...) \
  struct S {                                                                       \
    __VA_ARGS__                                                                    \
    static constexpr OpInfo info{.schema = schema_,                                \
                                 .doc = doc_,                                      \
                                 .autocast = Autocast::rule_,                      \
                                 .cast_inputs = slots_,                            \
                                 .inplace = inplace_,                              \
                                 .shown = Shown::shown_};                          \
    bool operator==(const S&) const = default;                                     \
    Result body(Inputs in) const;                                                  \
  };                                                                               \
  DS_OP(S);                                                                        \
  Result S::body([[maybe_unused]] Inputs in) const

#define DS_BODY(...) DS_BODY_AS(Tensor, kNone, kAllSlots, __VA_ARGS__)
#define DS_BODY_CAST(rule, ...) DS_BODY_AS(Tensor, rule, kAllSlots, __VA_ARGS__)
#define DS_BODY_CAST_OF(rule, slots, ...) DS_BODY_AS(Tensor, rule, slots, __VA_ARGS__)
#define DS_BODY_LIST(...) DS_BODY_AS(TensorList, kNone, kAllSlots, __VA_ARGS__)
