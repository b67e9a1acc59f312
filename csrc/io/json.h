// A small strict JSON reader (RFC 8259) for headers of untrusted files, and the string writer that goes with it.
//
// The reader pulls values one at a time, so memory stays proportional to what the caller keeps. Stricter than most:
// duplicate keys, lone surrogates, numbers outside the range of a double and nesting beyond `max_depth` are errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "base/check.h"

namespace deepseek::io::json {

// `what()` says what is wrong and at which byte of the text.
class ParseError : public Error {
 public:
  using Error::Error;
};

enum class Kind { kObject, kArray, kString, kNumber, kBool, kNull };
const char* name_of(Kind kind);

// Position of the first byte that is not valid UTF-8 (overlong forms, surrogates, > U+10FFFF); npos when all is well.
size_t find_invalid_utf8(std::string_view text);

class Reader {
 public:
  // `text` must be valid UTF-8 and outlive the reader.
  explicit Reader(std::string_view text, int max_depth = 127) : text_(text), depth_left_(max_depth) {}

  Kind peek();  // kind of the next value, judged by its first character

  // Each reads one value of that kind, or throws ParseError.
  std::string string();
  std::optional<uint64_t> number();  // empty for a valid number that is not an integer in [0, 2^64)
  bool boolean();
  void null();
  void skip();  // any value; still checks every rule

  // Calls on_member(std::string key) after each key; it must read exactly one value.
  template <class F>
  void object(F&& on_member) {
    enter('{', "an object");
    std::unordered_set<std::string> seen;
    for (bool first = true; more('}', first); first = false) {
      std::string key = string();
      if (!seen.insert(key).second) error("duplicate key \"" + key + "\"");
      colon();
      on_member(std::move(key));
    }
    ++depth_left_;
  }

  // Calls on_element() before each element; it must read exactly one value.
  template <class F>
  void array(F&& on_element) {
    enter('[', "an array");
    for (bool first = true; more(']', first); first = false) on_element();
    ++depth_left_;
  }

  void finish();  // only white space may follow
  [[noreturn]] void error(const std::string& what) const;

 private:
  char next_significant();  // skips white space; does not consume; throws at the end of the text
  char at_or_nul() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void enter(char open, const char* what);
  bool more(char close, bool first);
  void colon();
  void literal(std::string_view word);
  void escape(std::string& out);
  uint32_t hex4();

  std::string_view text_;
  size_t at_ = 0;
  int depth_left_;
};

// Appends `text` (valid UTF-8) as a JSON string literal, escaping only what JSON requires.
void append_string(std::string& out, std::string_view text);

}  // namespace deepseek::io::json
