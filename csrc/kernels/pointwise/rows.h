// Takes the arguments of a row of pointwise.def apart: (Tensor input, Number other).
#pragma once

// f(Tensor input), f(Number other). Spaces matter: schemas are made of this.
// clang-format off
#define DS_LIST(f, arguments) DS_LIST_OF(f, DS_LIST_OPEN arguments)
#define DS_LIST_OPEN(...) __VA_ARGS__
#define DS_LIST_OF(...) DS_LIST_1(__VA_ARGS__)
#define DS_LIST_1(f, a, ...) f(a)__VA_OPT__(, DS_LIST_2(f, __VA_ARGS__))
#define DS_LIST_2(f, a, ...) f(a)__VA_OPT__(, DS_LIST_3(f, __VA_ARGS__))
#define DS_LIST_3(f, a) f(a)

// Each works on one argument, by pasting the first of its two words.
#define DS_ONE(argument) 1
#define DS_NAME(argument) DS_NAME_##argument                    // other
#define DS_REFERENCE(argument) &DS_NAME(argument)               // &other
#define DS_PARAMETER(argument) const Tensor& DS_NAME(argument)  // const Tensor& other
#define DS_IN_SCHEMA(argument) DS_IN_SCHEMA_##argument          // Tensor|Number other
#define DS_NAME_Tensor
#define DS_NAME_Number
#define DS_NAME_LeftNumber
#define DS_IN_SCHEMA_Tensor Tensor
#define DS_IN_SCHEMA_Number Tensor|Number
#define DS_IN_SCHEMA_LeftNumber Tensor|LeftNumber
// clang-format on

#define DS_TEXT(...) DS_TEXT_OF(__VA_ARGS__)
#define DS_TEXT_OF(...) #__VA_ARGS__
