// Text put together without streams, whose headers and calls are slow to compile.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace deepseek {

// A piece of a message while it is put together: refers to its value. A type of ours becomes one by an `append` of its
// own.
class Word {
 public:
  Word(const char* s) : kind_(kText), text_(s) {}
  Word(std::string_view s) : kind_(kText), text_(s) {}
  Word(const std::string& s) : kind_(kText), text_(s) {}
  Word(char c) : kind_(kChar), char_(c) {}
  Word(double v) : kind_(kDouble), double_(v) {}  // six digits, as a stream writes it
  template <std::integral T>
  Word(T v) {
    if constexpr (std::signed_integral<T>)
      kind_ = kInt, int_ = v;
    else
      kind_ = kUint, uint_ = v;
  }
  template <class T>
  requires requires(std::string& text, const T& value) { append(text, value); }
  Word(const T& value)
      : kind_(kOther), other_{&value, [](std::string& text, const void* p) {
                                append(text, *static_cast<const T*>(p));
                              }} {}

  void append_to(std::string& text) const;

 private:
  enum Kind : uint8_t { kText, kChar, kDouble, kInt, kUint, kOther };
  struct Other {
    const void* value;
    void (*append)(std::string&, const void*);
  };

  Kind kind_;
  union {
    std::string_view text_;
    char char_;
    double double_;
    int64_t int_;
    uint64_t uint_;
    Other other_;
  };
};

std::string text_of(std::initializer_list<Word> words);
// "a, b or c"
std::string either(const std::vector<std::string>& parts);

}  // namespace deepseek
